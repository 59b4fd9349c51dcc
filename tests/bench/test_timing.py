"""Contestants are opened anew in every round, one at a time, and each comes first in its turn."""

from collections.abc import Callable
from functools import partial
from itertools import count
from statistics import median
from types import TracebackType
from typing import Self, cast

import pytest

from vlmc.runtime.errors import CheckFailed
from vlmc.toolchain.bench import timing
from vlmc.toolchain.bench.timing import ANSWERS, PHASES, Contestant, Opened, in_turns
from vlmc.toolchain.data.sample import Sample

SAMPLE = Sample("an id", (), "Which colour?", "red", "colour")


@pytest.fixture(autouse=True)
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SECONDS", 0.0)


class Fake:
    """Answers in as many seconds as it has answered before, after a first answer of a hundred."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.answered = name, log, 0

    def __enter__(self) -> Self:
        self.log.append(f"open {self.name}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.log.append(f"close {self.name}")

    def answer(self, sample: Sample, tokens: int) -> dict[str, float]:
        assert (sample, tokens) == (SAMPLE, 3)
        seconds = float(self.answered or 100)
        self.answered += 1
        return dict.fromkeys(PHASES, seconds)


def everyone(names: str, log: list[str], kind: type[Fake] = Fake) -> dict[str, Contestant]:
    opens = cast(Callable[[str, list[str]], Opened], kind)
    return {name: Contestant(partial(opens, name, log), 1) for name in names}


def test_who_is_opened_is_closed_before_the_next_and_every_round_begins_with_another() -> None:
    log: list[str] = []
    found = list(in_turns(everyone("abc", log), SAMPLE, 3, 4))
    opened = [line.split()[1] for line in log[::2]]
    assert ["".join(opened[start : start + 3]) for start in range(0, 12, 3)] == ["abc", "bca", "cab", "abc"]
    assert log[1::2] == [f"close {name}" for name in opened]
    assert [list(one) for one in found] == [["a", "b", "c"]] * 4


def test_the_median_answer_counts_and_the_first_does_not() -> None:
    (found,) = in_turns(everyone("a", []), SAMPLE, 3, 1)
    assert found == {"a": dict.fromkeys(PHASES, (1 + ANSWERS) / 2)}


def test_quick_answers_are_given_until_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SECONDS", 2.5)
    ticks = count()
    monkeypatch.setattr(timing, "perf_counter", lambda: next(ticks) / 2)
    (found,) = in_turns(everyone("a", []), SAMPLE, 3, 1)
    assert found["a"]["decode"] == median(
        range(1, 8)
    )  # half a second passes between two looks at the clock, the first after three answers


def test_who_fails_is_closed() -> None:
    class Failing(Fake):
        def answer(self, sample: Sample, tokens: int) -> dict[str, float]:
            raise CheckFailed("no")

    log: list[str] = []
    with pytest.raises(CheckFailed):
        next(in_turns(everyone("a", log, Failing), SAMPLE, 3, 1))
    assert log == ["open a", "close a"]
