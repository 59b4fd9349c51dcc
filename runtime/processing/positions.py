"""Positions of tokens.

Shapes: B requests, S tokens, G images; a grid is (time, height, width) in patches.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from vlmc.runtime.errors import InputError
from vlmc.runtime.processing.base import Array

_MIXED = "the processor and the graphs belong to different models"


def sequential(mask_BS: Array, first: int = 0) -> Array:
    """Return positions (B, S) that count the tokens one by one from `first`, without those that are masked out."""
    positions_BS: Array = np.maximum(mask_BS.cumsum(1) - 1, 0) + first
    return positions_BS


def m_rope(image_BS: Array, mask_BS: Array, grids_G3: Array, merge: int) -> Array:
    """Return M-RoPE's positions (3, B, S): Qwen2-VL (arXiv 2409.12191), section 2.1.

    A text token has one number three times. The tokens of an image count its rows and columns, from where the text before
    it ended, and the text after it continues from the largest of them. `image_BS` is true for image tokens, `grids_G3` are
    the images' sizes in patches, of which `merge` x `merge` become a token.

    Raises:
        InputError: an image has more or fewer tokens than its size gives.
    """
    positions = np.zeros((3, *mask_BS.shape), np.int64)
    grids = iter(grids_G3)
    for row, (is_image_S, mask_S) in enumerate(zip(image_BS, mask_BS.astype(bool), strict=True)):
        parts, start = [], 0
        for is_image, count in _runs(is_image_S[mask_S]):
            if not is_image:
                parts.append(np.arange(start, start + count)[None].repeat(3, 0))
                start += count
                continue
            while count > 0:
                time, height, width = _sides(next(grids, None), merge)
                parts.append(np.indices((time, height, width)).reshape(3, -1) + start)
                start, count = start + max(height, width), count - time * height * width
            if count:
                raise InputError(f"an image's tokens do not match its size: {_MIXED}")
        positions[:, row, mask_S] = np.concatenate(parts, 1)
    return positions


def _runs(flags_S: Array) -> Iterator[tuple[bool, int]]:
    """Yield the runs of equal flags, and how long they are."""
    edges = [0, *(np.flatnonzero(np.diff(flags_S)) + 1).tolist(), len(flags_S)]
    for begin, end in pairwise(edges):
        yield bool(flags_S[begin]), end - begin


def _sides(grid: Array | None, merge: int) -> tuple[int, int, int]:
    if grid is None:
        raise InputError(f"there are image tokens without an image: {_MIXED}")
    return int(grid[0]), int(grid[1]) // merge, int(grid[2]) // merge
