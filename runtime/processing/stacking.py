"""Batches of single requests as one batch.

Shapes: B requests, S tokens of the longest request, X tiles or patches of all images.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vlmc.runtime.processing.base import Array, Batch

_NUMBERED = ("patch_images", "patch_windows")
"""Arrays that number what they belong to within their batch."""
_PLACES = "feature_places"  # says where the features of all images of a batch lie; its numbers hold for that batch alone


def fit_together(batches: Sequence[Batch]) -> bool:
    """Whether the batches can be one: their arrays have the same names, and their images the same sizes."""
    shapes = {name: array.shape[1:] for batch in batches for name, array in batch.vision.items()}
    same = all(array.shape[1:] == shapes[name] for batch in batches for name, array in batch.vision.items())
    seeing = [batch.vision.keys() for batch in batches if batch.vision]
    if len(seeing) > 1 and _PLACES in seeing[0]:
        return False
    return same and all(names == seeing[0] for names in seeing) and len({frozenset(batch.extras) for batch in batches}) == 1


def stacked(batches: Sequence[Batch]) -> Batch:
    """Return the requests of all batches in one, padded on the right; the batches have to fit together."""
    if len(batches) == 1:
        return batches[0]
    longest = max(batch.ids_BS.shape[1] for batch in batches)
    rows = batches[0].positions.ndim - 2
    return Batch(
        np.concatenate([_padded(batch.ids_BS, longest) for batch in batches]),
        np.concatenate([_padded(batch.mask_BS, longest) for batch in batches]),
        np.concatenate([_padded(batch.positions, longest) for batch in batches], rows),
        _vision([batch.vision for batch in batches if batch.vision]),
        {name: np.concatenate([_padded(batch.extras[name], longest) for batch in batches]) for name in batches[0].extras},
    )


def _padded(array: Array, longest: int) -> Array:
    """Return an array (..., S) with zeros after its own tokens."""
    if array.shape[-1] == longest:
        return array
    made = np.zeros((*array.shape[:-1], longest), array.dtype)
    made[..., : array.shape[-1]] = array
    return made


def _vision(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    made = {}
    for name in parts[0] if parts else ():
        arrays, before = [], 0
        for part in parts:
            arrays.append(part[name] + before if name in _NUMBERED else part[name])
            before = int(arrays[-1].max()) + 1 if name in _NUMBERED else 0
        made[name] = np.concatenate(arrays)
    return made
