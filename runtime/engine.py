"""Engine: prefill and step on arrays, feeding the inputs that the graphs declare.

Shapes: B requests, S new tokens, P past tokens, T = P + S, D hidden size, V vocabulary, K key-value heads, E head size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from vlmc.runtime.deployment import Deployment
from vlmc.runtime.errors import InputError
from vlmc.runtime.processing.base import Batch
from vlmc.runtime.sessions import Array, Session

_PAST, _PRESENT = "past_key_values.", "present."


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
            InputError: a graph declares an input that the batch lacks, or the images' features do not match their tokens.
        """
        rows, length = batch.ids_BS.shape
        feeds = {
            "inputs_embeds": self._embed(batch),
            "attention_mask": batch.mask_BS,
            "position_ids": batch.positions,
            **batch.extras,
        }
        outputs = self._run(self._decoder, feeds | _empty_cache(self._decoder, rows))
        last_B = batch.lengths_B - 1
        logits_BV = outputs.pop("logits")[np.arange(rows), last_B]
        positions_ABS = batch.positions.reshape(-1, rows, length)
        next_B = (positions_ABS * batch.mask_BS).max((0, 2)) + 1
        return logits_BV, State(_renamed(outputs), batch.mask_BS, next_B)

    def step(self, tokens_B: Array, state: State) -> tuple[Array, State]:
        """Run one more token of each row; return the logits (B, V) after it, and the next state."""
        mask_BT = np.concatenate([state.mask_BT, np.ones_like(state.mask_BT[:, :1])], 1)
        positions = state.next_B[:, None]
        if self._deployment.positions == "m-rope":
            positions = positions[None].repeat(3, 0)
        feeds = {
            "inputs_embeds": self._run(self._embedding, {"input_ids": tokens_B[:, None]})["inputs_embeds"],
            "attention_mask": mask_BT,
            "position_ids": positions,
        }
        outputs = self._run(self._decoder, feeds | dict(state.cache))
        logits_BV = outputs.pop("logits")[:, -1]
        return logits_BV, State(_renamed(outputs), mask_BT, state.next_B + 1)

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
