"""Slots: the rows of a running batch's state, which are filled, freed and filled again in place.

Shapes: B slots, T columns, K key-value heads, E head size. A row's tokens end in the last column and come without a gap, so
that distances between columns are distances between tokens; before them, and in free slots, the mask is 0.
"""

from collections.abc import Sequence
from typing import final

import numpy as np

from vlmc.runtime.engine import State
from vlmc.runtime.sessions import Array

_SPARE = 32  # columns that no row needs any more, before the state is cut to what is needed


@final
class Slots:
    """The state of some rows, in `count` slots, of which some may be free.

    A new row goes into a free slot without a copy of the others. They are copied where there is no free slot, where the new
    row is longer than all of them, and where much of the state is no longer needed.
    """

    def __init__(self, like: State) -> None:
        self.state = _copied(like, [], 0)
        self.taken: list[bool] = []

    @property
    def count(self) -> int:
        """How many slots there are."""
        return len(self.taken)

    def fill(self, new: State, rows: Sequence[int]) -> list[int]:
        """Put some rows of another state, padded on the right, into free slots; return which."""
        if not self.taken and len(rows) == len(new.next_B) == 1:
            self.state, self.taken = new, [True]
            return [0]
        free, length = [slot for slot, taken in enumerate(self.taken) if not taken], int(new.mask_BT[rows].sum(1).max())
        more = max(0, len(rows) - len(free))
        if more or length > self._columns:
            self.state = _copied(self.state, [*range(self.count), *[-1] * more], max(length, self._columns))
            free += range(self.count, self.count + more)
            self.taken += [False] * more
        for slot, row in zip(free, rows, strict=False):
            self._write(slot, new, row)
        return free[: len(rows)]

    def free(self, slots: Sequence[int]) -> None:
        """Free some slots."""
        for slot in slots:
            self.taken[slot] = False

    def rest(self) -> None:
        """Set free slots back to nothing before a step, which adds a token to them too: they run out of no positions."""
        free = [slot for slot, taken in enumerate(self.taken) if not taken]
        self.state.mask_BT[free], self.state.next_B[free] = 0, 0

    def compact(self) -> list[int] | None:
        """Give up free slots and columns, if that is much; return the slots that are kept, in their order, None: all."""
        kept = [slot for slot, taken in enumerate(self.taken) if taken]
        length = int(self.state.mask_BT[kept].sum(1).max())
        if 4 * len(kept) > 3 * self.count and self._columns - length <= max(_SPARE, length // 4):
            return None
        self.state = _copied(self.state, kept, length)
        self.taken = [True] * len(kept)
        return kept

    @property
    def _columns(self) -> int:
        columns: int = self.state.mask_BT.shape[1]
        return columns

    def _write(self, slot: int, new: State, row: int) -> None:
        """Write a row so that it ends in the last column."""
        length = int(new.mask_BT[row].sum())
        first = self._columns - length
        mask_T = self.state.mask_BT[slot]
        mask_T[:first], mask_T[first:] = 0, 1
        self.state.next_B[slot], self.taken[slot] = new.next_B[row], True
        for name, array in self.state.cache.items():
            array[slot, :, first:] = new.cache[name][row, :, :length]


def _copied(state: State, kept: Sequence[int], columns: int) -> State:
    """Return some rows of a state with its last columns, or more before the first; -1 stands for an empty row."""
    cache = {name: _moved(array, kept, columns, 2) for name, array in state.cache.items()}
    next_B = np.array([state.next_B[row] if row >= 0 else 0 for row in kept], np.int64)
    return State(cache, _moved(state.mask_BT, kept, columns, 1), next_B)


def _moved(array: Array, kept: Sequence[int], columns: int, axis: int) -> Array:
    """Return an array (B, T) or (B, K, T, E), with T at `axis`, as `_copied` does."""
    made = np.zeros((len(kept), *array.shape[1:axis], columns, *array.shape[axis + 1 :]), array.dtype)
    shared = min(array.shape[axis], columns)
    last = (..., slice(-shared, None), *[slice(None)] * (array.ndim - axis - 1)) if shared else None
    for index, row in enumerate(kept):
        if row >= 0 and last is not None:
            made[index][last] = array[row][last]
    return made
