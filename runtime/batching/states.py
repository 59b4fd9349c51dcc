"""States of several batches as one: rows are added, taken out and moved.

Shapes: B rows, T tokens, K key-value heads, E head size. A row's tokens end in the last column, after its padding.
"""

from collections.abc import Sequence

import numpy as np

from vlmc.runtime.engine import State
from vlmc.runtime.sessions import Array


def joined(states: Sequence[State]) -> State:
    """Return the rows of all states in one, as long as their longest row."""
    rows = [(state, row) for state in states for row in range(len(state.mask_BT))]
    lengths = [int(state.mask_BT[row].sum()) for state, row in rows]
    longest = max(lengths)
    mask_BT = np.zeros((len(rows), longest), states[0].mask_BT.dtype)
    cache = {name: _empty(array, len(rows), longest) for name, array in states[0].cache.items()}
    for index, ((state, row), length) in enumerate(zip(rows, lengths, strict=True)):
        own_T = state.mask_BT[row].astype(bool)
        mask_BT[index, longest - length :] = 1
        for name, array in cache.items():
            array[index, :, longest - length :] = state.cache[name][row][:, own_T]
    return State(cache, mask_BT, np.concatenate([state.next_B for state in states]))


def kept(state: State, rows: Sequence[int]) -> State:
    """Return some rows of a state, as long as the longest of them."""
    mask_BT = state.mask_BT[rows]
    first = int(mask_BT.any(0).argmax())
    cache = {name: array[rows, :, first:] for name, array in state.cache.items()}
    return State(cache, mask_BT[:, first:], state.next_B[rows])


def _empty(like: Array, rows: int, length: int) -> Array:
    return np.zeros((rows, like.shape[1], length, like.shape[3]), like.dtype)
