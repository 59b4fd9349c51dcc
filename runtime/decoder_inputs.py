"""What a decoder is fed beside its tokens: an empty cache, images' features in their places, what rests while it answers.

Shapes: B rows, S tokens, D hidden size, L layers, F image features, K key-value heads, E head size.
"""

from collections.abc import Mapping

import numpy as np

from vlmc.runtime.errors import InputError
from vlmc.runtime.sessions import PRESENT, Array, Session

_PAST = "past_key_values."
_RESTING = {"block_sequence_ids": -1, "deepstack_embeds": 0}
"""Inputs that say something of a prompt alone, and what they are for all other tokens."""

WRITE = "write_indices"
"""The input of a decoder whose cache is in place: the column of each row's first new token."""


def empty_cache(decoder: Session, rows: int) -> dict[str, Array]:
    """Return keys and values (B, K, 0, E) for every layer, as the decoder's inputs declare them."""
    return {
        name: np.zeros([size if isinstance(size, int) else rows * (axis == 0) for axis, size in enumerate(shape)], kind)
        for name, (kind, shape) in decoder.inputs.items()
        if name.startswith(_PAST)
    }


def at_rest(decoder: Session, rows: int, tokens: int) -> dict[str, Array]:
    """Return the inputs that the decoder declares for a prompt's images, (B, S, ...), for tokens without an image."""
    declared = {name: decoder.inputs[name] for name in _RESTING if name in decoder.inputs}
    return {
        name: np.full((rows, tokens, *(int(size) for size in shape[2:])), _RESTING[name], kind)
        for name, (kind, shape) in declared.items()
    }


def placed(features: Array, is_image_BS: Array, others: Array | None = None) -> Array:
    """Return features (F, ...) in the places of image tokens, (B, S, ...); elsewhere `others`, or else zero.

    Raises:
        InputError: there are more or fewer features than tokens.
    """
    if int(is_image_BS.sum()) != len(features):
        raise InputError(
            f"the images have {len(features)} features and {int(is_image_BS.sum())} tokens: the processor and the "
            "graphs belong to different models; export again"
        )
    result = np.zeros((*is_image_BS.shape, *features.shape[1:]), features.dtype) if others is None else others.copy()
    result[is_image_BS] = features
    return result


def renamed(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return keys and values that a graph returned under the names of the decoder's inputs."""
    return {name.replace(PRESENT, _PAST): value for name, value in outputs.items()}


def returned(cache: Mapping[str, Array]) -> dict[str, Array]:
    """Return a cache under the names of the decoder's outputs."""
    return {name.replace(_PAST, PRESENT): value for name, value in cache.items()}


def widened(array: Array, columns: int) -> Array:
    """Return an array (B, T) or (B, K, T, E) with so many columns T, zero after those that it has."""
    axis = 1 if array.ndim == 2 else 2
    made = np.zeros((*array.shape[:axis], columns, *array.shape[axis + 1 :]), array.dtype)
    made[(slice(None),) * axis + (slice(array.shape[axis]),)] = array
    return made


def written(mask_BT: Array, new_BS: Array, write_B: Array) -> Array:
    """Return a mask with new tokens in the columns of each row from `write_B` on."""
    made = mask_BT.copy()
    rows, columns = new_BS.shape
    made[np.arange(rows)[:, None], write_B[:, None] + np.arange(columns)] = new_BS
    return made
