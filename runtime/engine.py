"""Engine: prefill and step on arrays, feeding the inputs that the graphs declare.

Shapes: B requests, S new tokens, P past tokens, T = P + S, D hidden size, V vocabulary, K key-value heads, E head size.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import numpy as np

from vlmc.runtime.deployment import Deployment
from vlmc.runtime.errors import InputError, one_line
from vlmc.runtime.processing.base import Batch
from vlmc.runtime.sessions import Array, Session

_PAST, _PRESENT = "past_key_values.", "present."
NOTHING: Mapping[str, Array] = MappingProxyType({})


@dataclass(frozen=True)
class State:
    """The state of a batch of requests between steps; each step returns a new one.

    `cache` has keys and values (B, K, T, E) under the names of the decoder's inputs, `mask_BT` is 1 for a row's own tokens
    and 0 for padding, `next_B` is each row's next position.
    """

    cache: Mapping[str, Array]
    mask_BT: Array
    next_B: Array


@final
class Engine:
    """A model's graphs. It keeps no state between calls: several threads may share it.

    Raises:
        InputError: the deployment asks for what this version of vlmc cannot run.
    """

    def __init__(self, deployment: Deployment, sessions: Mapping[str, Session]) -> None:
        _check(deployment)
        self._deployment, self._sessions = deployment, sessions
        graphs = deployment.graphs
        self._vision, self._embedding, self._decoder = (
            sessions[name] for name in (graphs.vision, graphs.embedding, graphs.decoder)
        )

    def prefill(self, batch: Batch) -> tuple[Array, State]:
        """Run the prompts; return the logits (B, V) after each row's last token, and the state for the next step.

        Raises:
            InputError: a graph declares an input that the batch lacks, the images' features do not match their tokens, or
                the graphs have other outputs or shapes than such a model's.
        """
        with _of_one_model():
            return self._prefill(batch)

    def prefill_in_chunks(self, batch: Batch, chunk: int) -> Generator[None, None, tuple[Array, State]]:
        """Do as `prefill` for one row, `chunk` tokens at a time, and yield after its images and between the chunks.

        Raises:
            InputError: as `prefill`.
        """
        with _of_one_model():
            embeds_BSD = self._embed(batch)
        state = self._begun(batch)
        for start in range(0, embeds_BSD.shape[1], chunk):
            yield
            part = slice(start, start + chunk)
            with _of_one_model():
                logits_BSV, state = self._extend(
                    embeds_BSD[:, part], batch.mask_BS[:, part], batch.positions[..., part], state
                )
        return logits_BSV[:, -1], state

    def reads_whole(self, batch: Batch) -> bool:
        """Whether the prompt has to be run at once, because the decoder has further inputs for its tokens."""
        return bool(self._decoder.inputs.keys() & batch.extras.keys())

    def _prefill(self, batch: Batch) -> tuple[Array, State]:
        embeds_BSD, state = self._embed(batch), self._begun(batch)
        logits_BSV, state = self._extend(embeds_BSD, batch.mask_BS, batch.positions, state, batch.extras)
        return logits_BSV[np.arange(len(logits_BSV)), batch.lengths_B - 1], state

    def _begun(self, batch: Batch) -> State:
        rows = len(batch.ids_BS)
        return State(_empty_cache(self._decoder, rows), batch.mask_BS[:, :0], np.zeros(rows, np.int64))

    def _extend(
        self, embeds_BSD: Array, mask_BS: Array, positions: Array, state: State, extras: Mapping[str, Array] = NOTHING
    ) -> tuple[Array, State]:
        """Run new tokens after those of a state; return the logits (B, S, V) after each, and the next state."""
        mask_BT = np.concatenate([state.mask_BT, mask_BS], 1)
        feeds = {"inputs_embeds": embeds_BSD, "attention_mask": mask_BT, "position_ids": positions, **extras}
        outputs = self._run(self._decoder, feeds | dict(state.cache))
        positions_ABS = positions.reshape(-1, *mask_BS.shape)
        next_B = np.maximum(state.next_B, (positions_ABS * mask_BS).max((0, 2)) + 1)
        return outputs.pop("logits"), State(_renamed(outputs), mask_BT, next_B)

    def step(self, tokens_B: Array, state: State) -> tuple[Array, State]:
        """Run one more token of each row; return the logits (B, V) after it, and the next state.

        Raises:
            InputError: as `prefill`.
        """
        with _of_one_model():
            return self._step(tokens_B, state)

    def _step(self, tokens_B: Array, state: State) -> tuple[Array, State]:
        positions = state.next_B[:, None]
        if self._deployment.positions == "m-rope":
            positions = positions[None].repeat(3, 0)
        embeds_BSD = self._run(self._embedding, {"input_ids": tokens_B[:, None]})["inputs_embeds"]
        mask_BS = np.ones((len(tokens_B), 1), state.mask_BT.dtype)
        logits_BSV, extended = self._extend(embeds_BSD, mask_BS, positions, state)
        return logits_BSV[:, -1], extended

    def close(self) -> None:
        """Free the graphs; the engine cannot run any more."""
        for session in self._sessions.values():
            session.close()

    def _embed(self, batch: Batch) -> Array:
        """Return the input's embeddings (B, S, D), with the images' features in place of their tokens."""
        embeds_BSD = self._run(self._embedding, {"input_ids": batch.ids_BS})["inputs_embeds"]
        if not batch.vision:
            return embeds_BSD
        features = self._run(self._vision, batch.vision)["image_features"].reshape(-1, embeds_BSD.shape[-1])
        is_image_BS = (batch.ids_BS == self._deployment.image_token_id) & batch.mask_BS.astype(bool)
        if int(is_image_BS.sum()) != len(features):
            raise InputError(
                f"the images have {len(features)} features and {int(is_image_BS.sum())} tokens: the processor and the "
                "graphs belong to different models; export again"
            )
        embeds_BSD = embeds_BSD.copy()
        embeds_BSD[is_image_BS] = features
        return embeds_BSD

    def _run(self, session: Session, feeds: Mapping[str, Array]) -> dict[str, Array]:
        missing = [name for name in session.inputs if name not in feeds]
        if missing:
            raise InputError(f"a graph needs {missing[0]}, which the processor does not return: export again")
        return session.run({name: feeds[name] for name in session.inputs})


@contextmanager
def _of_one_model() -> Iterator[None]:
    """Turn into one line what comes of graphs with other inputs, outputs or shapes than the deployment says."""
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise InputError(
            f"the graphs do not fit each other or deployment.json ({type(error).__name__}: {one_line(error)}): export again"
        ) from None


def _check(deployment: Deployment) -> None:
    """Raise InputError for what only a later version can run."""
    asked = {
        "an encoder-decoder": deployment.decoder != "causal",
        "a mask over the whole prompt": deployment.prefix_mask,
        "deepstack": deployment.deepstack > 0,
    }
    for what, needed in asked.items():
        if needed:
            raise InputError(f"this {deployment.family} model needs {what}, which this vlmc cannot run: upgrade vlmc")


def _empty_cache(decoder: Session, rows: int) -> dict[str, Array]:
    """Return keys and values (B, K, 0, E) for every layer, as the decoder's inputs declare them."""
    return {
        name: np.zeros([size if isinstance(size, int) else rows * (axis == 0) for axis, size in enumerate(shape)], kind)
        for name, (kind, shape) in decoder.inputs.items()
        if name.startswith(_PAST)
    }


def _renamed(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the decoder's outputs under the names of its inputs."""
    return {name.replace(_PRESENT, _PAST): value for name, value in outputs.items()}
