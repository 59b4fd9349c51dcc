"""What the tests of the batcher ask, and how they hold what is under way."""

import time
from threading import Event
from typing import Any

import pytest

from tests import pico
from vlmc.runtime import Message, Model, Options

SHAPES = ((32, 32), (90, 40), (36, 70), (20, 110))
SHORT = Options(max_new_tokens=4)


def question(number: int) -> Message:
    """Return one of many questions, of unlike lengths, about images of unlike shapes."""
    words = " ".join(["what", "is", "the", "digit", "in", "a"][: 1 + number % 6])
    return Message("user", [pico.picture(number, *SHAPES[number % 4]), f"{words} {pico.QUESTIONS[number % 3]}"])


class Held:
    """Holds the engine's steps until it is let go."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.calls, before = Event(), 0, model.engine.step

        def step(*given: Any) -> Any:
            self.calls += 1
            assert self.go.wait(20)
            return before(*given)

        monkeypatch.setattr(model.engine, "step", step)


def until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def alone(model: Model, number: int, tokens: int) -> tuple[int, ...]:
    return model.chat([question(number)], max_new_tokens=tokens).tokens
