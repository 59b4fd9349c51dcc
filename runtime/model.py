"""Model: a loaded artifact that answers questions about images; text in, text out."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, final

import numpy as np

from vlmc.runtime import processing
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.deployment import Deployment
from vlmc.runtime.engine import Engine
from vlmc.runtime.errors import InputError
from vlmc.runtime.images import ImageInput, open_image
from vlmc.runtime.processing import Batch, Processing, Request
from vlmc.runtime.prompts import fill_prompt
from vlmc.runtime.sampling import Sampler
from vlmc.runtime.sessions import CPU, SESSIONS, Array, Session
from vlmc.runtime.text import Text
from vlmc.runtime.verification import Verification, read_files

ONNX = "onnx"

Images = ImageInput | Sequence[ImageInput]
"""One image, or several that the question is about."""


@dataclass(frozen=True)
class Answer:
    """An answer; `str()` gives its text.

    `tokens` are the generated ids, with the one that ends the answer; `finish` says what ended it: the model (`stop`), or
    the limit of tokens or positions (`length`).
    """

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish: Literal["stop", "length"]

    def __str__(self) -> str:
        return self.text


Verify = bool | Literal["size"]
"""What is compared with the manifest before the first answer: True, the SHA-256 of what is read; `"size"`, sizes."""


def load(
    path: Path | str,
    *,
    backend: str = ONNX,
    providers: Sequence[str] = CPU,
    threads: int = 0,
    verify: Verify = True,
) -> "Model":
    """Load an artifact's graphs of a backend; `threads` is the number of CPU threads, 0 for one per core.

    The files are hashed while the graphs are loaded, those that did not change since they were hashed last are not; the
    first question waits until all are, and is refused if one differs. `verify="size"` compares sizes only, False nothing.

    Raises:
        InputError: there is no artifact, it is damaged, it has no such graphs, or the runtime cannot run such a model.
        EnvironmentLacks: ONNX Runtime lacks the execution provider.
    """
    if backend not in SESSIONS:
        raise InputError(f"the runtime cannot run {backend} graphs: give one of {', '.join(SESSIONS)}")
    artifact, suffix = Artifact.open(path, sizes=verify is not False), SESSIONS[backend][0]
    deployment = artifact.deployment(backend)
    graphs = () if deployment is None else deployment.graphs.names
    if deployment is None or any(f"{backend}/{name}{suffix}" not in artifact.manifest.files for name in graphs):
        raise InputError(f"{path} has no graphs for {backend} yet: run 'vlmc export {path} --backend {backend}'")
    verified = Verification(artifact, read_files(artifact, backend)) if verify is True else None
    folder = artifact.root / backend
    return Model.from_graphs(artifact.root, deployment, folder, providers, threads, backend=backend, verified=verified)


@final
class Model:
    """A vision-language model in its graphs. It keeps no state between calls: several threads may share it."""

    def __init__(
        self,
        deployment: Deployment,
        text: Text,
        process: Processing,
        engine: Engine,
        verified: Verification | None = None,
    ) -> None:
        self._deployment, self._text, self._process, self._engine = deployment, text, process, engine
        self._verified = verified

    @classmethod
    def from_graphs(
        cls,
        root: Path,
        deployment: Deployment,
        graphs: Path,
        providers: Sequence[str] = CPU,
        threads: int = 0,
        *,
        backend: str = ONNX,
        verified: Verification | None = None,
    ) -> "Model":
        """Load graphs from any folder; `root` holds the tokenizer and, where one is used, the processor.

        The first question waits until the files are `verified`.
        """
        suffix, opened = SESSIONS[backend]
        sessions = {name: opened(graphs / f"{name}{suffix}", providers, threads) for name in deployment.graphs.names}
        return cls.from_sessions(root, deployment, sessions, verified)

    @classmethod
    def from_sessions(
        cls, root: Path, deployment: Deployment, sessions: Mapping[str, Session], verified: Verification | None = None
    ) -> "Model":
        """Use graphs that are already loaded, by the names that the deployment gives them."""
        process, engine = processing.find(root, deployment), Engine(deployment, sessions)
        return cls(deployment, Text(root), process, engine, verified)

    def generate(
        self,
        image: Images,
        prompt: str,
        *,
        raw: bool = False,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Answer:
        """Answer a question about an image, or about several.

        The prompt is put into the model's own template; with `raw` it is the whole input, with a slot for each image.
        Temperature 0 is greedy; above it tokens are sampled, the same ones for the same seed.

        Raises:
            InputError: an image cannot be read, there are too many, the prompt is empty or too long, an option is out
                of range, or a file of the artifact is not the one that its manifest lists.
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
        image: Images,
        prompt: str,
        *,
        raw: bool = False,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Generator[str, None, Answer]:
        """Yield the answer of `generate` piece by piece while it is generated, and return it whole.

        Raises:
            InputError: as `generate`, before the first piece.
        """
        sampler, random = Sampler(temperature, top_p), np.random.default_rng(seed)
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}: give at least 1")
        batch = self._process([self._request(image, prompt, raw=raw)])
        if self._verified is not None:
            self._verified.wait()
        limit = min(max_new_tokens, self._room(int(batch.lengths_B[0])) or max_new_tokens)
        choices = self._choose(batch, limit, lambda logits_V: sampler.choose(logits_V, random))
        return self._show(choices, int(batch.lengths_B[0]))

    def close(self) -> None:
        """Free the graphs; the model cannot answer any more."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _request(self, image: Images, prompt: str, *, raw: bool) -> Request:
        given = [image] if isinstance(image, ImageInput) else list(image)
        most = self._deployment.max_images
        if most is not None and len(given) > most:
            raise InputError(f"{len(given)} images were given, and this model looks at {most} at a time")
        text = fill_prompt(self._deployment.prompt, prompt, images=len(given), raw=raw)
        return Request(text, tuple(open_image(one) for one in given))

    def _room(self, prompt_tokens: int) -> int | None:
        """Return how many tokens may follow the prompt; None where there is no limit."""
        most = self._deployment.max_positions
        if most is None:
            return None
        if prompt_tokens >= most:
            raise InputError(
                f"the prompt and its images take {prompt_tokens} tokens, and this model has room for {most}: "
                "ask a shorter question"
            )
        return most - prompt_tokens

    def _show(self, choices: Iterator[int], prompt_tokens: int) -> Generator[str, None, Answer]:
        """Yield the text of the tokens as soon as no later token can change it; return the whole answer."""
        stream = self._text.stream()
        for token in choices:
            if piece := stream.add(token):
                yield piece
        if piece := stream.end():
            yield piece
        stopped = stream.tokens[-1] in self._deployment.stop_ids
        return Answer(self._text.decode(stream.tokens), tuple(stream.tokens), prompt_tokens, "stop" if stopped else "length")

    def _choose(self, batch: Batch, limit: int, choose: Callable[[Array], int]) -> Iterator[int]:
        """Return the tokens of the answer. The prompt is run now, and a chosen token when the next one is asked for."""
        logits_BV, state = self._engine.prefill(batch)

        def tokens() -> Iterator[int]:
            logits, standing = logits_BV, state
            for count in range(1, limit + 1):
                token = choose(logits[0].astype(np.float32))
                yield token
                if token in self._deployment.stop_ids or count == limit:
                    return
                logits, standing = self._engine.step(np.array([token]), standing)

        return tokens()
