"""Engine: prefill and step on arrays, feeding the inputs that the graphs declare.

Shapes: B requests, S new tokens, P past tokens, T = P + S, D hidden size, V vocabulary, K key-value heads, E head size. With
a cache in place, T is the room of its buffers.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import final

import numpy as np

from vlmc.runtime.decoder_inputs import WRITE, at_rest, empty_cache, placed, renamed, returned, widened, written
from vlmc.runtime.deployment import Deployment
from vlmc.runtime.errors import InputError, one_line
from vlmc.runtime.processing.base import Batch
from vlmc.runtime.sessions import Array, Bound, Session

QUESTION_MASK = "encoder_attention_mask"
"""The decoder's input for the mask of the question, in an encoder-decoder."""
SPARE = 16
"""Columns for more tokens that buffers get at least; long ones get an eighth of what they hold."""
NOTHING: Mapping[str, Array] = MappingProxyType({})


def _nothing() -> None: ...


@dataclass(frozen=True)
class State:
    """The state of a batch of requests between steps; each step returns a new one.

    `cache` has keys and values (B, K, T, E) under the names of the decoder's inputs, `mask_BT` is 1 for a row's own tokens
    and 0 for padding, `next_B` is each row's next position. `question` is what an encoder-decoder's decoder reads in every
    step and does not change: keys and values (B, K, S, E) of the question, and its mask (B, S).

    In place, a row's tokens are in the first columns, without a gap, and room for more follows. The next step writes
    there, so a state that has been stepped is not to be stepped again. `bound` is the decoder, bound to its cache.
    """

    cache: Mapping[str, Array]
    mask_BT: Array
    next_B: Array
    question: Mapping[str, Array] = field(default_factory=dict)
    in_place: bool = False
    bound: Bound | None = None


@final
class Engine:
    """A model's graphs. It keeps no state between calls: several threads may share it."""

    def __init__(self, deployment: Deployment, sessions: Mapping[str, Session]) -> None:
        self._deployment, self._sessions = deployment, sessions
        graphs = deployment.graphs
        self._vision, self._embedding, self._decoder = (
            sessions[name] for name in (graphs.vision, graphs.embedding, graphs.decoder)
        )
        self._encoder = None if graphs.encoder is None else sessions[graphs.encoder]

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
            embedded = self._embed(batch)
        state = self._begun(len(batch.ids_BS))
        for start in range(0, batch.ids_BS.shape[1], chunk):
            yield
            part = slice(start, start + chunk)
            with _of_one_model():
                given = {name: array[:, part] for name, array in embedded.items()}
                logits_BSV, state = self._extend(given, batch.mask_BS[:, part], batch.positions[..., part], state)
        return logits_BSV[:, -1], state

    def reads_whole(self, batch: Batch) -> bool:
        """Whether the prompt has to be run at once: its tokens see each other in both directions."""
        return self._encoder is not None or bool(self._decoder.inputs.keys() & batch.extras.keys())

    def _prefill(self, batch: Batch) -> tuple[Array, State]:
        embedded = self._embed(batch)
        if self._encoder is not None:
            return self._start(self._encoder, embedded, batch.mask_BS)
        state = self._begun(len(batch.ids_BS))
        logits_BSV, state = self._extend(embedded | dict(batch.extras), batch.mask_BS, batch.positions, state)
        last_B = np.minimum(batch.lengths_B, logits_BSV.shape[1]) - 1
        return logits_BSV[np.arange(len(logits_BSV)), last_B], state

    def _start(self, encoder: Session, embedded: Mapping[str, Array], mask_BS: Array) -> tuple[Array, State]:
        """Encode the questions, and run the token that answers start from."""
        question = renamed(self._run(encoder, {**embedded, "attention_mask": mask_BS}))
        rows = len(mask_BS)
        state = self._begun(rows, question | {QUESTION_MASK: mask_BS})
        return self._step(np.full(rows, self._deployment.start_id), state)

    def _begun(self, rows: int, question: Mapping[str, Array] = NOTHING) -> State:
        """Return the state before the first token."""
        cache = {name: one for name, one in empty_cache(self._decoder, rows).items() if name not in question}
        in_place = self._deployment.cache == "in-place"
        return State(cache, np.zeros((rows, 0), np.int64), np.zeros(rows, np.int64), question, in_place)

    def _extend(self, given: Mapping[str, Array], mask_BS: Array, positions: Array, state: State) -> tuple[Array, State]:
        """Run new tokens after those of a state; return the logits (B, S, V) after each, and the next state.

        A decoder whose cache is in place may give the logits (B, 1, V) after each row's last one alone.
        """
        feeds = at_rest(self._decoder, *mask_BS.shape) | dict(given) | {"position_ids": positions}
        if state.in_place:
            state = roomy(state, mask_BS.shape[1])
            feeds[WRITE] = state.mask_BT.sum(1)
            mask_BT = written(state.mask_BT, mask_BS, feeds[WRITE])
        else:
            mask_BT = np.concatenate([state.mask_BT, mask_BS], 1)
        feeds |= {"attention_mask": mask_BT, **state.question, **state.cache}
        positions_ABS = positions.reshape(-1, *mask_BS.shape)
        next_B = np.maximum(state.next_B, (positions_ABS * mask_BS).max((0, 2)) + 1)
        bound = (state.bound or self._decoder.bound(returned(state.cache))) if state.in_place else None
        outputs = (bound or self._decoder).run(self._needed(self._decoder, feeds))
        logits_BSV = outputs.pop("logits")
        return logits_BSV, replace(state, cache=renamed(outputs), mask_BT=mask_BT, next_B=next_B, bound=bound)

    def step(self, tokens_B: Array, state: State, meanwhile: Callable[[], None] = _nothing) -> tuple[Array, State]:
        """Run one more token of each row; return the logits (B, V) after it, and the next state.

        `meanwhile` is called before the decoder runs: for as long as that takes, other threads have Python to themselves.

        Raises:
            InputError: as `prefill`.
        """
        with _of_one_model():
            return self._step(tokens_B, state, meanwhile)

    def _step(self, tokens_B: Array, state: State, meanwhile: Callable[[], None] = _nothing) -> tuple[Array, State]:
        positions = state.next_B[:, None]
        if self._deployment.positions == "m-rope":
            positions = positions[None].repeat(3, 0)
        embedded = self._run(self._embedding, {"input_ids": tokens_B[:, None]})
        mask_BS = np.ones((len(tokens_B), 1), state.mask_BT.dtype)
        meanwhile()
        logits_BSV, extended = self._extend(embedded, mask_BS, positions, state)
        return logits_BSV[:, -1], extended

    def close(self) -> None:
        """Free the graphs; the engine cannot run any more."""
        for session in self._sessions.values():
            session.close()

    def _embed(self, batch: Batch) -> dict[str, Array]:
        """Return the input's embeddings (B, S, D), with the images' features in place of their tokens.

        With deepstack, the features for the decoder's first layers (B, S, L, D) too.
        """
        is_image_BS = (batch.ids_BS == self._deployment.image_token_id) & batch.mask_BS.astype(bool)
        ids_BS = np.where(is_image_BS, 0, batch.ids_BS)  # an image's token need not be in the table
        embeds_BSD = self._run(self._embedding, {"input_ids": ids_BS})["inputs_embeds"]
        if not batch.vision:
            return {"inputs_embeds": embeds_BSD}
        found = self._run(self._vision, batch.vision)
        features = found["image_features"].reshape(-1, embeds_BSD.shape[-1])
        embedded = {"inputs_embeds": placed(features, is_image_BS, embeds_BSD)}
        if self._deployment.deepstack:
            embedded["deepstack_embeds"] = placed(found["deepstack_features"], is_image_BS)
        return embedded

    def _run(self, session: Session, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return session.run(self._needed(session, feeds))

    @staticmethod
    def _needed(session: Session, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return what the graph takes in.

        Raises:
            InputError: something is missing.
        """
        missing = [name for name in session.inputs if name not in feeds]
        if missing:
            raise InputError(f"a graph needs {missing[0]}, which the processor does not return: export again")
        return {name: feeds[name] for name in session.inputs}


def roomy(state: State, new: int) -> State:
    """Return a state whose buffers have room for so many more tokens in every row: itself, or a copy with spare columns."""
    used, had = int(state.mask_BT.sum(1).max(initial=0)) + new, state.mask_BT.shape[1]
    if used <= had:
        return state
    columns = used + max(SPARE, used // 8)
    cache = {name: widened(array, columns) for name, array in state.cache.items()}
    return replace(state, cache=cache, mask_BT=widened(state.mask_BT, columns), bound=None)


@contextmanager
def _of_one_model() -> Iterator[None]:
    """Turn into one line what comes of graphs with other inputs, outputs or shapes than the deployment says."""
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise InputError(
            f"the graphs do not fit each other or deployment.json ({type(error).__name__}: {one_line(error)}): export again"
        ) from None
