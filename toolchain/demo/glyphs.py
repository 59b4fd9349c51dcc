"""Handwritten digits: scikit-learn's 1797 samples, in three splits, enlarged to 24 x 24 coverage maps.

Shapes: N samples, H x W pixels. A coverage is an integer, 0 (paper) to `FULL` (ink), so drawing is exact everywhere.
"""

from functools import cache
from random import Random
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

GLYPH = 24
"""Side of an enlarged digit in pixels."""

FULL = 144
"""Coverage of full ink: 16 grey levels times 3 x 3 interpolation weights."""

_SHARES: dict[Split, tuple[float, float]] = {
    "train": (0.0, 0.7),
    "validation": (0.7, 0.8),
    "test": (0.8, 1.0),
}


@cache
def _digits() -> Any:
    from sklearn.datasets import load_digits  # here, since it imports a lot that only the demo's data needs

    return load_digits()


@cache
def labels() -> tuple[int, ...]:
    """Return the digit that each of the 1797 samples shows."""
    return tuple(int(label) for label in _digits().target)


@cache
def split_indices(split: Split) -> tuple[int, ...]:
    """Return the samples of one split: 70 % train, 10 % validation, 20 % test, drawn with a fixed seed."""
    order = list(range(len(labels())))
    Random("vlmc demo handwriting").shuffle(order)
    first, last = (round(share * len(order)) for share in _SHARES[split])
    return tuple(sorted(order[first:last]))


@cache
def split_by_digit(split: Split) -> tuple[tuple[int, ...], ...]:
    """Return, for each digit 0 to 9, the samples of one split that show it."""
    return tuple(tuple(i for i in split_indices(split) if labels()[i] == digit) for digit in range(10))


@cache
def coverage_NHW() -> npt.NDArray[np.int32]:
    """Return all samples, enlarged three times by bilinear interpolation in integers."""
    grey_NHW = _digits().images.astype(np.int32)
    enlarge_HH = _triple(grey_NHW.shape[1])
    enlarged_NHW: npt.NDArray[np.int32] = enlarge_HH @ grey_NHW @ enlarge_HH.T
    return enlarged_NHW


def _triple(side: int) -> npt.NDArray[np.int32]:
    """Return the (3 side) x side matrix of bilinear weights, in thirds."""
    matrix = np.zeros((3 * side, side), dtype=np.int32)
    for row in range(3 * side):
        below, thirds = divmod(row - 1, 3)
        matrix[row, max(below, 0)] += 3 - thirds
        matrix[row, min(below + 1, side - 1)] += thirds
    return matrix
