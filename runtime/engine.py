"""Engine: prefill and step on arrays, feeding the inputs that the graphs declare.

Shapes: B requests, S new tokens, P past tokens, T = P + S, D hidden size, V vocabulary, K key-value heads, E head size.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import numpy as np

from vlmc.runtime.decoder_inputs import at_rest, empty_cache, placed, renamed
from vlmc.runtime.deployment import Deployment
from vlmc.runtime.errors import InputError, one_line
from vlmc.runtime.processing.base import Batch
from vlmc.runtime.sessions import Array, Session


@dataclass(frozen=True)
class State:
    """The state of a batch of requests between steps; each step returns a new one.

    `cache` has keys and values (B, K, T, E) under the names of the decoder's inputs, `mask_BT` is 1 for a row's own tokens
    and 0 for padding, `next_B` is each row's next position. `question` is what an encoder-decoder's decoder reads in every
    step and does not change: keys and values (B, K, S, E) of the question, and its mask (B, S).
    """

    cache: Mapping[str, Array]
    mask_BT: Array
    next_B: Array
    question: Mapping[str, Array] = field(default_factory=dict)


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

    def _prefill(self, batch: Batch) -> tuple[Array, State]:
        embedded = self._embed(batch)
        if self._encoder is not None:
            return self._start(self._encoder, embedded, batch.mask_BS)
        rows, length = batch.ids_BS.shape
        feeds = {
            "attention_mask": batch.mask_BS,
            "position_ids": batch.positions,
            **at_rest(self._decoder, rows, length),
            **batch.extras,
            **embedded,
        }
        outputs = self._run(self._decoder, feeds | empty_cache(self._decoder, rows))
        last_B = batch.lengths_B - 1
        logits_BV = outputs.pop("logits")[np.arange(rows), last_B]
        positions_ABS = batch.positions.reshape(-1, rows, length)
        next_B = (positions_ABS * batch.mask_BS).max((0, 2)) + 1
        return logits_BV, State(renamed(outputs), batch.mask_BS, next_B)

    def _start(self, encoder: Session, embedded: Mapping[str, Array], mask_BS: Array) -> tuple[Array, State]:
        """Encode the questions, and run the token that answers start from."""
        question = renamed(self._run(encoder, {**embedded, "attention_mask": mask_BS}))
        rows = len(mask_BS)
        cache = {name: one for name, one in empty_cache(self._decoder, rows).items() if name not in question}
        state = State(cache, mask_BS[:, :0], np.zeros(rows, np.int64), question | {"encoder_attention_mask": mask_BS})
        return self._step(np.full(rows, self._deployment.start_id), state)

    def step(self, tokens_B: Array, state: State) -> tuple[Array, State]:
        """Run one more token of each row; return the logits (B, V) after it, and the next state.

        Raises:
            InputError: as `prefill`.
        """
        with _of_one_model():
            return self._step(tokens_B, state)

    def _step(self, tokens_B: Array, state: State) -> tuple[Array, State]:
        mask_BT = np.pad(state.mask_BT, ((0, 0), (0, 1)), constant_values=1)
        positions = state.next_B[:, None]
        if self._deployment.positions == "m-rope":
            positions = positions[None].repeat(3, 0)
        feeds = {
            "inputs_embeds": self._run(self._embedding, {"input_ids": tokens_B[:, None]})["inputs_embeds"],
            "attention_mask": mask_BT,
            "position_ids": positions,
            **at_rest(self._decoder, len(mask_BT), 1),
        }
        outputs = self._run(self._decoder, feeds | dict(state.question) | dict(state.cache))
        logits_BV = outputs.pop("logits")[:, -1]
        return logits_BV, State(renamed(outputs), mask_BT, state.next_B + 1, state.question)

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
