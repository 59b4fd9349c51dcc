"""Weights in whole numbers of 8 bits, with a scale for every few columns of each output.

Shapes: O outputs, I inputs, S spans of columns that share a scale.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.errors import InputError
from vlmc.runtime.kernels.columns import CHUNK, SPAN

Array = NDArray[Any]

MOST = 127
"""Whole numbers go from its negative to it: -128 would have no opposite."""


@dataclass(frozen=True)
class Rounded:
    """A weight: int8 (O, I) of -127 to 127, float32 scales (O, S), and the columns that share one."""

    whole_OI: Array
    scales_OS: Array
    span: int = SPAN

    @property
    def weight_OI(self) -> Array:
        """What it stands for (O, I), in float32."""
        weight: Array = self.whole_OI * of_columns(self.scales_OS, self.span, self.whole_OI.shape[1])
        return weight


def scales_of(weight_OI: Array, span: int) -> Array:
    """Return max|w| / 127 of each output and span, float32 (O, S).

    Raises:
        InputError: `span` is no multiple of 32.
    """
    if span <= 0 or span % CHUNK:
        raise InputError(f"{span} columns cannot share a scale: give a multiple of {CHUNK}")
    outputs, columns = weight_OI.shape
    spans = -(-columns // span)
    padded = np.zeros((outputs, spans * span), np.float32)
    padded[:, :columns] = weight_OI
    found: Array = np.abs(padded).reshape(outputs, spans, span).max(-1) / np.float32(MOST)
    return found


def of_columns(scales_OS: Array, span: int, columns: int) -> Array:
    """Return the scale of every weight (O, I)."""
    found: Array = np.repeat(scales_OS, span, 1)[:, :columns]
    return found


def round_to_nearest(weight_OI: Array, span: int = SPAN) -> Rounded:
    """Round every weight to the nearest whole number of its scale; a zero stays zero.

    Raises:
        InputError: as `scales_of` does.
    """
    scales_OS = scales_of(weight_OI, span)
    steps_OI = of_columns(scales_OS, span, weight_OI.shape[1])
    whole_OI = np.rint(np.divide(weight_OI, steps_OI, out=np.zeros(weight_OI.shape, np.float32), where=steps_OI != 0))
    return Rounded(np.clip(whole_OI, -MOST, MOST).astype(np.int8), scales_OS, span)
