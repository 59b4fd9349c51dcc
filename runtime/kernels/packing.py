"""Packing a weight into the layout that the kernels read, and back; layout.h describes it.

Shapes: O outputs, I inputs, B blocks of 16 outputs, C chunks of 32 columns, G the 8 groups of a chunk, S spans of columns
that share a scale; K is 2, or 4 for a dense weight.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.errors import InputError
from vlmc.runtime.kernels.columns import CHUNK, SPAN
from vlmc.runtime.kernels.rounding import Rounded, of_columns, round_to_nearest

Array = NDArray[Any]
ValueType = Literal["fp32", "bf16", "fp16", "int8"]

LANES, GROUP, GROUPS = 16, 4, 8

_MARKS = (np.arange(16)[:, None] >> np.arange(GROUP)) & 1  # for every set of non-zeros in a group: which of the four are
_TOO_MANY = _MARKS.sum(1) > 2
_NOT_2_4 = "the weight is not 2:4: it cannot be packed as such"
_PLACES = np.sort(np.argsort(1 - _MARKS, 1, kind="stable")[:, :2], 1)  # of the non-zeros, then of the earliest zeros


@dataclass(frozen=True)
class Packed:
    """A weight (O, I) in blocks.

    `values` holds float32, float16, int8, or uint16 for the bits of bf16: (B, C, G, 2, 16), for bf16 (B, C, G, 16, 2); dense
    weights have pairs of columns as one more axis after G. `positions` is uint32 (B, C, 16), None for a dense weight.
    `scales` is float32 (B, S, 16), int8 only.
    """

    type: ValueType
    outputs: int
    inputs: int
    values: Array
    positions: Array | None = None
    scales: Array | None = None
    span: int = SPAN

    @property
    def nbytes(self) -> int:
        """The bytes of all its arrays."""
        return sum(array.nbytes for array in (self.values, self.positions, self.scales) if array is not None)


def pack(weight_OI: Array, kind: ValueType, *, dense: bool = False, span: int = SPAN) -> Packed:
    """Pack a weight in float32; int8 is rounded to nearest, with a scale of max|w| / 127 per output and span.

    Raises:
        InputError: the weight is not 2:4 and `dense` is not set, or `span` is no multiple of 32.
    """
    if kind == "int8":
        return pack_rounded(round_to_nearest(weight_OI, span), dense=dense)
    values, positions = _arranged(weight_OI, kind, dense=dense)
    outputs, inputs = weight_OI.shape
    return Packed(kind, outputs, inputs, values, positions)


def pack_rounded(rounded: Rounded, *, dense: bool = False) -> Packed:
    """Pack a weight that is in whole numbers already.

    Raises:
        InputError: the weight is not 2:4 and `dense` is not set.
    """
    outputs, inputs = rounded.whole_OI.shape
    values, positions = _arranged(rounded.whole_OI, "int8", dense=dense)
    padded_OS = np.pad(rounded.scales_OS, ((0, -outputs % LANES), (0, 0)))
    scales = padded_OS.reshape(-1, LANES, padded_OS.shape[1]).transpose(0, 2, 1)
    return Packed("int8", outputs, inputs, values, positions, np.ascontiguousarray(scales), rounded.span)


def _arranged(weight_OI: Array, kind: ValueType, *, dense: bool) -> tuple[Array, Array | None]:
    """Return a weight's values and positions as the kernels read them; no positions for a dense one."""
    outputs, inputs = weight_OI.shape
    blocks, chunks = -(-outputs // LANES), -(-inputs // CHUNK)
    padded = np.zeros((blocks * LANES, chunks * CHUNK), np.float32)
    padded[:outputs, :inputs] = weight_OI
    groups_BCGL4 = padded.reshape(blocks, LANES, chunks, GROUPS, GROUP).transpose(0, 2, 3, 1, 4)
    positions = None
    if dense:
        kept = groups_BCGL4.reshape(*groups_BCGL4.shape[:-1], 2, 2).transpose(0, 1, 2, 4, 3, 5)  # B C G pair L 2
    else:
        kept, positions = _kept(weight_OI, groups_BCGL4)
    return _narrowed(kept if kind == "bf16" else np.swapaxes(kept, -1, -2), kind), positions


def unpack(packed: Packed) -> Array:
    """Return the weight (O, I) in float32."""
    values = _widened(packed.values, packed.type)
    kept = values if packed.type == "bf16" else np.swapaxes(values, -1, -2)
    if packed.positions is None:
        groups_BCGL4 = kept.transpose(0, 1, 2, 4, 3, 5).reshape(*kept.shape[:3], LANES, GROUP)
    else:
        groups_BCGL4 = np.zeros((*kept.shape[:-1], GROUP), np.float32)
        shifts = 4 * np.arange(GROUPS, dtype=np.uint32)[:, None, None] + np.array([0, 2], np.uint32)
        places = (packed.positions[:, :, None, :, None] >> shifts) & 3
        np.put_along_axis(groups_BCGL4, places.astype(np.int64), kept, -1)
    blocks, chunks = groups_BCGL4.shape[:2]
    padded = groups_BCGL4.transpose(0, 3, 1, 2, 4).reshape(blocks * LANES, chunks * CHUNK)
    if packed.scales is not None:
        scales_OS = packed.scales.transpose(0, 2, 1).reshape(blocks * LANES, -1)
        padded = padded * of_columns(scales_OS, packed.span, chunks * CHUNK)
    return np.ascontiguousarray(padded[: packed.outputs, : packed.inputs])


def places_of(kept: Array) -> Array:
    """Return the places (..., 2) of the kept weights in groups of four (..., 4), ascending; of fewer, with the first others.

    Raises:
        InputError: a group keeps more than two.
    """
    marks = (kept * np.array([1, 2, 4, 8], np.uint8)).sum(-1, dtype=np.uint8)
    if _TOO_MANY[marks].any():
        raise InputError(_NOT_2_4)
    found: Array = _PLACES[marks]
    return found


def _kept(weight_OI: Array, groups_BCGL4: Array) -> tuple[Array, Array]:
    """Return the two kept weights of every group (B, C, G, L, 2), and their places as the kernels' bits (B, C, L)."""
    if weight_OI.shape[1] % GROUP:
        raise InputError(_NOT_2_4)
    places = places_of(groups_BCGL4 != 0)
    kept = np.take_along_axis(groups_BCGL4, places, -1)
    shifts = 4 * np.arange(GROUPS, dtype=np.uint32)[:, None, None] + np.array([0, 2], np.uint32)
    positions = np.bitwise_or.reduce(np.bitwise_or.reduce(places.astype(np.uint32) << shifts, -1), 2)
    return kept, positions


def _narrowed(values: Array, kind: ValueType) -> Array:
    if kind == "bf16":
        return to_bfloat16(values)
    return np.ascontiguousarray(values, {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}[kind])


def _widened(values: Array, kind: ValueType) -> Array:
    return from_bfloat16(values) if kind == "bf16" else values.astype(np.float32)


def to_bfloat16(values: Array) -> Array:
    """Round float32 to bf16, to nearest and ties to even; return the bits as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40  # rounding would turn some NaN into infinity
    found: Array = np.where(np.isnan(values), quiet, rounded).astype(np.uint16)
    return found


def from_bfloat16(bits: Array) -> Array:
    """Return the float32 of bf16's bits."""
    found: Array = (bits.astype(np.uint32) << 16).view(np.float32)
    return found
