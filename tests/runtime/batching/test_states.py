"""Slots hold each row's own tokens, whatever joins, leaves and moves around them."""

from dataclasses import replace

import numpy as np
import pytest

from vlmc.runtime.batching.states import Slots
from vlmc.runtime.decoder_inputs import written
from vlmc.runtime.engine import NOTHING, QUESTION_MASK, SPARE, State, roomy
from vlmc.runtime.sessions import Array


def prompts(lengths: list[int], first: int, *, asked: bool = False, in_place: bool = False) -> State:
    """Return a state padded on the right, whose keys number the tokens: row `first` + b, token t -> 100 (first + b) + t.

    With `asked` row r also has a question, of 1 + r % 7 tokens, numbered in the same way. `in_place` leaves no room.
    """
    mask_BT = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    rows = first + np.arange(len(lengths))
    keys = 100 * rows[:, None] + np.arange(max(lengths))
    cache = {"past_key_values.0.key": np.where(mask_BT, keys, -1.0)[:, None, :, None].repeat(2, 1)}
    return State(cache, mask_BT, np.array(lengths, np.int64), questions(rows) if asked else NOTHING, in_place)


def questions(rows_B: Array) -> dict[str, Array]:
    numbers = np.arange(1 + (rows_B % 7).max())
    mask_BS = (numbers < 1 + rows_B[:, None] % 7).astype(np.int64)
    keys_BS = np.where(mask_BS, 100 * rows_B[:, None] + numbers, -1.0)
    return {QUESTION_MASK: mask_BS, "past_key_values.0.encoder.key": keys_BS[:, None, :, None].repeat(2, 1)}


def step(slots: Slots, rows: dict[int, int]) -> None:
    """Append a token to every slot, as the engine does: its number for taken slots, nonsense for free ones."""
    slots.rest()
    state = slots.state
    if state.in_place:
        step_in_place(slots, rows)
        return
    count = len(state.next_B)
    new = np.full((count, 2, 1, 1), -7.0)
    for slot, row in rows.items():
        new[slot] = 100 * row + state.next_B[slot]
    cache = {name: np.concatenate([array, new], 2) for name, array in state.cache.items()}
    mask_BT = np.concatenate([state.mask_BT, np.ones((count, 1), np.int64)], 1)
    slots.state = State(cache, mask_BT, state.next_B + 1, state.question)


def step_in_place(slots: Slots, rows: dict[int, int]) -> None:
    state = roomy(slots.state, 1)
    write_B = state.mask_BT.sum(1)
    for slot, column in enumerate(write_B):
        number = 100 * rows[slot] + state.next_B[slot] if slot in rows else -7.0
        state.cache["past_key_values.0.key"][slot, :, column] = number
    mask_BT = written(state.mask_BT, np.ones((len(write_B), 1), np.int64), write_B)
    slots.state = replace(state, mask_BT=mask_BT, next_B=state.next_B + 1)


def check(slots: Slots, rows: dict[int, int]) -> None:
    state = slots.state
    for slot, row in rows.items():
        length = int(state.next_B[slot])
        own = np.flatnonzero(state.mask_BT[slot])
        first = 0 if state.in_place else state.mask_BT.shape[1] - length
        assert own.tolist() == list(range(first, first + length))
        expected = np.tile(100 * row + np.arange(length), (2, 1))
        np.testing.assert_array_equal(state.cache["past_key_values.0.key"][slot, :, own, 0].T, expected)
        if state.question:
            own = np.flatnonzero(state.question[QUESTION_MASK][slot])
            expected = np.tile(100 * row + np.arange(1 + row % 7), (2, 1))
            np.testing.assert_array_equal(state.question["past_key_values.0.encoder.key"][slot, :, own, 0].T, expected)


@pytest.mark.parametrize(("asked", "in_place"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("seed", range(10))
def test_rows_keep_their_tokens(seed: int, asked: bool, in_place: bool) -> None:
    draw = np.random.default_rng(seed)
    slots, rows, count = Slots(prompts([3], 0, asked=asked, in_place=in_place)), dict[int, int](), 0
    for _ in range(60):
        if draw.random() < 0.3:
            lengths = draw.integers(1, 40, draw.integers(1, 4)).tolist()
            some = [index for index in range(len(lengths)) if index == 0 or draw.random() < 0.7]
            used = slots.fill(prompts(lengths, count, asked=asked, in_place=in_place), some)
            assert not set(used) & rows.keys()
            rows |= {slot: count + index for slot, index in zip(used, some, strict=True)}
            count += len(lengths)
        if not rows:
            continue
        step(slots, rows)
        check(slots, rows)
        if len(rows) > 1 and draw.random() < 0.4:
            leaving = draw.choice(list(rows), draw.integers(1, len(rows)), replace=False).tolist()
            slots.free(leaving)
            rows = {slot: row for slot, row in rows.items() if slot not in leaving}
            kept = slots.compact()
            rows = rows if kept is None else {index: rows[slot] for index, slot in enumerate(kept)}
            check(slots, rows)


def test_a_free_slot_runs_out_of_no_positions() -> None:
    slots = Slots(prompts([3], 0))
    slots.fill(prompts([3, 3, 3, 3, 3], 0), [0, 1, 2, 3, 4])
    slots.free([4])
    for _ in range(50):
        step(slots, {0: 0})
    assert slots.state.next_B[4] == 1


def test_a_new_row_takes_a_free_slot_without_moving_the_others() -> None:
    slots = Slots(prompts([5], 0))
    slots.fill(prompts([5, 4, 3, 5, 5], 0), [0, 1, 2, 3, 4])
    before = slots.state.cache["past_key_values.0.key"]
    slots.free([1])
    assert slots.fill(prompts([2], 9), [0]) == [1]
    assert slots.state.cache["past_key_values.0.key"] is before
    check(slots, {0: 0, 1: 9, 2: 2})


def test_few_rows_do_not_stay_in_many_slots() -> None:
    slots = Slots(prompts([50], 0))
    slots.fill(prompts([50, 4, 4, 4], 0), [0, 1, 2, 3])
    slots.free([0, 2])
    assert slots.compact() == [1, 3]
    assert slots.state.mask_BT.shape == (2, 4)
    check(slots, {0: 1, 1: 3})


def test_buffers_grow_in_steps_and_keep_what_they_hold() -> None:
    state = prompts([5, 3], 0, in_place=True)
    grown = roomy(state, 1)
    assert grown.mask_BT.shape == (2, 6 + SPARE)
    assert grown.cache["past_key_values.0.key"].shape == (2, 2, 6 + SPARE, 1)
    np.testing.assert_array_equal(grown.cache["past_key_values.0.key"][:, :, :5], state.cache["past_key_values.0.key"])
    assert grown.mask_BT.sum(1).tolist() == [5, 3]
    assert roomy(grown, SPARE + 1) is grown
    assert roomy(grown, SPARE + 2) is not grown
