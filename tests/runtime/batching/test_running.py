"""Who waits for a text is woken in time, and not after every quick token."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from vlmc.runtime import Options
from vlmc.runtime.asking import Asked
from vlmc.runtime.batching import Pending
from vlmc.runtime.batching import running as batching
from vlmc.runtime.batching.rows import Row
from vlmc.runtime.batching.running import Running
from vlmc.runtime.engine import Engine, State
from vlmc.runtime.processing.base import Batch
from vlmc.runtime.reply import Reply
from vlmc.runtime.sessions import Array


class Clock:
    """A clock, and an engine whose steps take as long as they are told to."""

    def __init__(self, step: float) -> None:
        self.now, self.length = 100.0, step

    def step(self, tokens_B: Array, state: State, meanwhile: Callable[[], None]) -> tuple[Array, State]:
        meanwhile()
        self.now += self.length
        return np.eye(len(tokens_B), 9), state


class Words:
    """A text whose every token is a word."""

    def stream(self, stop: Any = ()) -> Any:
        tokens: list[int] = []
        return SimpleNamespace(
            tokens=tokens, text="x", stopped=False, add=lambda token: (tokens.append(token), "x")[1], end=lambda: ""
        )


def heard(step: float, tokens: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return when, after the first token, a question of so many tokens was told of its text."""
    clock, times = Clock(step), list[float]()
    monkeypatch.setattr(batching, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(Pending, "tell", lambda pending: times.append(round(clock.now - 100, 6)))
    running, ids = Running(cast(Engine, clock)), np.ones((1, 3), np.int64)
    asked = Asked(Batch(ids, ids, ids), Options(tokens), 3, tokens)
    row = Row(Pending(), asked, Reply(asked, cast(Any, Words()), (), 0))
    state = State({"past_key_values.0": np.zeros((1, 1, 3, 2), np.float32)}, ids, np.array([3]))
    running.join([row], np.eye(1, 9), state)
    while running.goes_on:
        running.step()
    running.tell()
    return times


def test_a_slow_token_is_told_while_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heard(0.1, 4, monkeypatch) == [0, 0.1, 0.2, 0.3]


def test_quick_tokens_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heard(0.001, 12, monkeypatch) == [0, 0.005, 0.01, 0.011]


def test_all_that_is_left_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heard(0.001, 3, monkeypatch) == [0, 0.002]


def test_each_question_gets_the_token_of_its_own_slot() -> None:
    clock, ids = Clock(0), np.ones((5, 3), np.int64)

    def asked(tokens: int) -> Row:
        found = Asked(Batch(ids[:1], ids[:1], ids[:1]), Options(tokens), 3, tokens)
        return Row(Pending(), found, Reply(found, cast(Any, Words()), (), 0))

    def state(rows: int) -> State:
        return State({"past_key_values.0": np.zeros((rows, 1, 3, 2), np.float32)}, ids[:rows], np.full(rows, 3))

    running = Running(cast(Engine, clock))
    five, late = [asked(2), *(asked(4) for _ in range(4))], asked(3)
    running.join(five, np.eye(5, 9), state(5))
    running.step()
    running.join([late], np.eye(1, 9), state(1))  # into the slot of the first one, after the others
    while running.goes_on:
        running.step()
    assert [row.reply._stream.tokens for row in five] == [[0] * 2, [1] * 4, [2] * 4, [3] * 4, [4] * 4]
    assert late.reply._stream.tokens == [0] * 3
