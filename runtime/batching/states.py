"""Slots: the rows of a running batch's state, which are filled, freed and filled again in place.

Shapes: B slots, R some rows, T columns, S columns of questions, K key-value heads, E head size. A row's tokens end in the
last column and come without a gap, so that distances between columns are distances between tokens; before them, and in free
slots, the mask is 0. So do the tokens of the questions that an encoder-decoder answers, in columns of their own. In a cache
in place, a row's tokens begin in the first column instead, and have room after them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np

from vlmc.runtime.engine import QUESTION_MASK, State
from vlmc.runtime.sessions import Array

_SPARE = 32  # columns that no row needs any more, before the state is cut to what is needed


@final
class Slots:
    """The state of some rows, in `count` slots, of which some may be free.

    A new row goes into a free slot without a copy of the others. They are copied where there is no free slot, where the new
    row is longer than all of them, and where much of the state is no longer needed.
    """

    def __init__(self, like: State) -> None:
        self.state = _copied(like, [], 0, 0)
        self.taken: list[bool] = []

    @property
    def count(self) -> int:
        """How many slots there are."""
        return len(self.taken)

    def fill(self, new: State, rows: Sequence[int]) -> list[int]:
        """Put some rows of another state, padded on the right, into free slots; return which."""
        count = len(new.next_B)
        as_it_is = count == 1 or (new.in_place and not new.question)  # its rows are where they would be put
        if not self.taken and as_it_is and list(rows) == list(range(count)):
            self.state, self.taken = new, [True] * count
            return list(rows)
        self.state, new = _at_hand(self.state), _at_hand(new)
        free, lengths_R2 = [slot for slot, taken in enumerate(self.taken) if not taken], _lengths(new, rows)
        more, had = max(0, len(rows) - len(free)), _columns(self.state)
        largest = [max(size, columns) for size, columns in zip(lengths_R2.max(0).tolist(), had, strict=True)]
        if more or largest != had:
            self.state = _copied(self.state, [*range(self.count), *[-1] * more], *largest)
            free += range(self.count, self.count + more)
            self.taken += [False] * more
        for slot, row, (length, asked) in zip(free, rows, lengths_R2.tolist(), strict=False):
            self._write(slot, new, row, length, asked)
        return free[: len(rows)]

    def free(self, slots: Sequence[int]) -> None:
        """Free some slots."""
        for slot in slots:
            self.taken[slot] = False

    def rest(self) -> None:
        """Set free slots back to nothing before a step, which adds a token to them too: they run out of no positions."""
        if free := [slot for slot, taken in enumerate(self.taken) if not taken]:
            self.state.mask_BT[free], self.state.next_B[free] = 0, 0

    def compact(self) -> list[int] | None:
        """Give up free slots and columns, if that is much; return the slots that are kept, in their order, None: all."""
        kept = [slot for slot, taken in enumerate(self.taken) if taken]
        sizes = _lengths(self.state, kept).max(0).tolist()
        spare = [had - size <= max(_SPARE, size // 4) for size, had in zip(sizes, _columns(self.state), strict=True)]
        if 4 * len(kept) > 3 * self.count and all(spare):
            return None
        self.state = _copied(self.state, kept, *sizes)
        self.taken = [True] * len(kept)
        return kept

    def _write(self, slot: int, new: State, row: int, length: int, asked: int) -> None:
        """Write a row, of so many tokens and with so many in its question, so that it ends in the last column."""
        columns = self.state.mask_BT.shape[1]
        first = 0 if self.state.in_place else columns - length
        own = slice(first, first + length)
        self.state.mask_BT[slot] = 0
        self.state.mask_BT[slot, own] = 1
        self.state.next_B[slot], self.taken[slot] = new.next_B[row], True
        for name, array in self.state.cache.items():
            array[slot, :, own] = new.cache[name][row, :, :length]
        for name, array in self.state.question.items():
            array[slot] = 0
            array[slot][_last(array, asked)] = new.question[name][row][_first(array, asked)]


def _lengths(state: State, rows: Sequence[int]) -> Array:
    """Return how many tokens each of some rows has, and its question: (R, 2)."""
    lengths_R2 = np.zeros((len(rows), 2), np.int64)
    state.mask_BT[rows].sum(1, out=lengths_R2[:, 0])
    if state.question:
        state.question[QUESTION_MASK][rows].sum(1, out=lengths_R2[:, 1])
    return lengths_R2


def _columns(state: State) -> list[int]:
    """Return how many columns a state has for tokens, and for those of questions."""
    return [state.mask_BT.shape[1], state.question[QUESTION_MASK].shape[1] if state.question else 0]


def _copied(state: State, kept: Sequence[int], columns: int, asked: int) -> State:
    """Return some rows of a state with its last columns, or more before the first; -1 stands for an empty row.

    In place, with its first columns, or more after the last.
    """
    state, part = _at_hand(state), _first if state.in_place else _last
    cache = {name: _moved(array, kept, columns, part) for name, array in state.cache.items()}
    question = {name: _moved(array, kept, asked, _last) for name, array in state.question.items()}
    next_B = np.array([state.next_B[row] if row >= 0 else 0 for row in kept], np.int64)
    mask_BT = _moved(state.mask_BT, kept, columns, part)
    return replace(state, cache=cache, mask_BT=mask_BT, next_B=next_B, question=question, bound=None)


def _at_hand(state: State) -> State:
    """Return a state whose arrays are in the computer's memory, where rows can be moved; a GPU's may not be yet."""
    cache, question = ({name: np.asarray(one) for name, one in part.items()} for part in (state.cache, state.question))
    return replace(state, cache=cache, question=question)


def _moved(array: Array, kept: Sequence[int], columns: int, part: Callable[[Array, int], tuple[Any, ...]]) -> Array:
    """Return an array (B, T) or (B, K, T, E) as `_copied` does."""
    axis = _axis(array)
    made = np.zeros((len(kept), *array.shape[1:axis], columns, *array.shape[axis + 1 :]), array.dtype)
    shared = min(array.shape[axis], columns)
    for index, row in enumerate(kept):
        if row >= 0 and shared:
            made[index][part(made, shared)] = array[row][part(array, shared)]
    return made


def _axis(array: Array) -> int:
    """Return the axis of an array's columns."""
    return 1 if array.ndim == 2 else 2


def _first(array: Array, count: int) -> tuple[Any, ...]:
    """Return what selects the first columns of one row of an array."""
    return (..., slice(count), *[slice(None)] * (array.ndim - 1 - _axis(array)))


def _last(array: Array, count: int) -> tuple[Any, ...]:
    """Return what selects the last columns of one row of an array."""
    columns = array.shape[_axis(array)]
    return (..., slice(columns - count, None), *[slice(None)] * (array.ndim - 1 - _axis(array)))
