"""Model: a loaded artifact that answers questions about pictures.

Shapes: S new tokens, T tokens in all, D hidden size, N image tokens, V vocabulary; the batch is always 1.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, final

import numpy as np

from vlmc.runtime.artifact import Artifact, Serving
from vlmc.runtime.errors import InputError
from vlmc.runtime.images import Picture, preprocess
from vlmc.runtime.prompts import fill_prompt
from vlmc.runtime.sampling import Sampler
from vlmc.runtime.sessions import CPU, Array, OnnxSession, Session
from vlmc.runtime.text import Text

GRAPHS = ("vision_encoder", "embed_tokens", "decoder_model_merged")


@dataclass(frozen=True)
class Answer:
    """An answer; `str()` gives its text.

    `tokens` are the ids that were generated, the end of the answer included; `finish` says what ended it: the model
    (`stop`), or the limit of tokens or positions (`length`).
    """

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish: Literal["stop", "length"]

    def __str__(self) -> str:
        return self.text


def load(path: Path | str, *, providers: Sequence[str] = CPU, threads: int = 0) -> "Model":
    """Load an artifact's ONNX graphs; `threads` is the number of CPU threads, 0 for one per core.

    Raises:
        InputError: no artifact there, a damaged one, one without ONNX graphs, or a model that the runtime cannot run.
        EnvironmentLacks: ONNX Runtime has no such execution provider here.
    """
    artifact = Artifact.open(path)
    serving = artifact.manifest.need_serving("run")
    missing = [name for name in GRAPHS if f"onnx/{name}.onnx" not in artifact.manifest.files]
    if missing:
        raise InputError(f"{path} has no ONNX graphs yet: run 'vlmc export {path} --backend onnx'")
    return Model.from_graphs(artifact.root, serving, artifact.root / "onnx", providers, threads)


@final
class Model:
    """A vision-language model in three graphs. It keeps no state between calls: several threads may share it."""

    def __init__(self, serving: Serving, text: Text, sessions: Mapping[str, Session]) -> None:
        self._serving = serving
        self._text = text
        self._sessions = dict(sessions)
        self._vision, self._embedding, self._decoder = (self._sessions[name] for name in GRAPHS)

    @classmethod
    def from_graphs(
        cls, root: Path, serving: Serving, graphs: Path, providers: Sequence[str] = CPU, threads: int = 0
    ) -> "Model":
        """Load graphs from any folder, with the tokenizer in `root`."""
        text = Text(root, serving)
        sessions = {name: OnnxSession(graphs / f"{name}.onnx", providers, threads) for name in GRAPHS}
        return cls(serving, text, sessions)

    def generate(
        self,
        image: Picture,
        prompt: str,
        *,
        raw: bool = False,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Answer:
        """Answer a question about a picture.

        The prompt goes into the model's own template; with `raw` it is the whole input, with a slot for the picture.
        Temperature 0 takes the likeliest token each time; above it tokens are drawn, the same ones for the same seed.

        Raises:
            InputError: the picture cannot be read, the prompt is empty or too long, an option is out of range.
        """
        pieces = self.stream(
            image, prompt, raw=raw, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
        )
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    def stream(
        self,
        image: Picture,
        prompt: str,
        *,
        raw: bool = False,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Generator[str, None, Answer]:
        """Yield the answer of `generate` piece by piece as it is made, and return it whole.

        Raises:
            InputError: as `generate`, before the first piece.
        """
        sampler, random = Sampler(temperature, top_p), np.random.default_rng(seed)
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}: give at least 1")
        ids = self._text.encode(fill_prompt(self._serving, prompt, raw=raw))
        limit = min(max_new_tokens, self._room(ids))
        choices = self._choose(self._embed(ids, image), limit, lambda logits_V: sampler.choose(logits_V, random))
        return self._show(choices, len(ids))

    def close(self) -> None:
        """Free the graphs; the model cannot answer any more."""
        for session in self._sessions.values():
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _room(self, ids: list[int]) -> int:
        """Return how many tokens may follow the prompt."""
        room = self._serving.max_positions - len(ids)
        if room < 1:
            raise InputError(
                f"the prompt and its picture take {len(ids)} tokens, and this model has room for "
                f"{self._serving.max_positions}: ask a shorter question"
            )
        return room

    def _show(self, choices: Iterator[int], prompt_tokens: int) -> Generator[str, None, Answer]:
        """Yield the text of the tokens as soon as no later token can change it; return the whole answer."""
        tokens: list[int] = []
        shown = ""
        for token in choices:
            tokens.append(token)
            settled = self._text.settled(tokens)
            if settled.startswith(shown) and len(settled) > len(shown):
                yield settled[len(shown) :]
                shown = settled
        text = self._text.decode(tokens)
        if len(text) > len(shown):
            yield text[len(shown) :]
        stopped = tokens[-1] in self._serving.eos_token_ids
        return Answer(text, tuple(tokens), prompt_tokens, "stop" if stopped else "length")

    def _embed(self, ids: list[int], image: Picture) -> Array:
        """Return the input's embeddings (S, D), the picture's features (N, D) in the places of its tokens."""
        features_ND = self._vision.run({"pixel_values": preprocess(image, self._serving.image)})["image_features"][0]
        embeds_SD: Array = self._embedding.run({"input_ids": np.array([ids])})["inputs_embeds"][0].copy()
        embeds_SD[np.array(ids) == self._serving.image_token_id] = features_ND
        return embeds_SD

    def _choose(self, embeds_SD: Array, limit: int, choose: Callable[[Array], int]) -> Iterator[int]:
        """Yield the tokens of the answer: run the decoder on the prompt, then on each token that was chosen."""
        cache = self._empty_cache()
        total = 0
        for _ in range(limit):
            total += len(embeds_SD)
            feeds = {
                "inputs_embeds": embeds_SD[None],
                "attention_mask": np.ones((1, total), np.int64),
                "position_ids": np.arange(total - len(embeds_SD), total)[None],
            }
            outputs = self._decoder.run(feeds | cache)
            token = choose(outputs.pop("logits")[0, -1].astype(np.float32))
            yield token
            if token in self._serving.eos_token_ids:
                return
            cache = {name.replace("present.", "past_key_values."): value for name, value in outputs.items()}
            embeds_SD = self._embedding.run({"input_ids": np.array([[token]])})["inputs_embeds"][0]

    def _empty_cache(self) -> dict[str, Array]:
        """Return keys and values (1, heads, 0, head size) for every layer, as the decoder's inputs want them."""
        return {
            name: np.zeros([size if isinstance(size, int) else int(axis == 0) for axis, size in enumerate(shape)], kind)
            for name, (kind, shape) in self._decoder.inputs.items()
            if name.startswith("past_key_values.")
        }
