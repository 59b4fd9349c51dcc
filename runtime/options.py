"""Options: how an answer is generated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack, final

from vlmc.runtime.errors import InputError, shortened

MOST_STOPS, MOST_STOP = 16, 1_000
"""Stop strings that an answer may have, and characters of each."""


class OptionKeywords(TypedDict, total=False):
    """The fields of `Options` as keywords of a call; `stop` may be one string."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    stop: str | Sequence[str]
    seed: int | None


@final
@dataclass(frozen=True)
class Options:
    """How an answer is generated; the defaults are greedy.

    `temperature` 0 takes the likeliest token. Above it a token is drawn: among the `top_k` likeliest (0: all), and of these
    among the likeliest that together have probability `top_p`. `repetition_penalty` above 1 makes tokens of the prompt and
    of the answer less likely (arXiv 1909.05858). The answer ends before the first `stop` string in its text, or after
    `max_new_tokens`. The same `seed` draws the same tokens; None: others each time.

    Raises:
        InputError: a value is out of range, or of another type.
    """

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    @classmethod
    def of(cls, **keywords: Unpack[OptionKeywords]) -> "Options":
        """Return the options that a call was given."""
        known, stop = OptionKeywords.__annotations__, keywords.get("stop", ())
        unknown = sorted(set(keywords) - set(known))
        if unknown:
            raise InputError(f"there is no option {shortened(unknown[0], 60)}: give {', '.join(known)}")
        if not isinstance(stop, str | Sequence):
            raise InputError(f"stop is a {type(stop).__name__}: give a text, or several")
        others: dict[str, Any] = {name: value for name, value in keywords.items() if name != "stop"}
        return cls(stop=(stop,) if isinstance(stop, str) else tuple(stop), **others)

    def __post_init__(self) -> None:
        _check_whole("max_new_tokens", self.max_new_tokens, 1)
        _check_whole("top_k", self.top_k, 0)
        if self.seed is not None:
            _check_whole("seed", self.seed, 0)
        _check_number("temperature", self.temperature, "give 0 (greedy) or more", least=0)
        _check_number("top_p", self.top_p, "give more than 0 and at most 1", above=0, most=1)
        _check_number("repetition_penalty", self.repetition_penalty, "give more than 0", above=0)
        self._check_stop()

    def _check_stop(self) -> None:
        if not isinstance(self.stop, tuple) or len(self.stop) > MOST_STOPS:
            raise InputError(f"stop has to be a tuple of at most {MOST_STOPS} texts")
        for one in self.stop:
            if not isinstance(one, str) or not 0 < len(one) <= MOST_STOP:
                raise InputError(f"stop {shortened(repr(one), 60)} is no text of 1 to {MOST_STOP} characters")


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name} is {shortened(repr(value), 60)}: give a whole number")
    if value < least:
        raise InputError(f"{name} is {value}: give at least {least}")


def _check_number(
    name: str, value: object, remedy: str, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{name} is {shortened(repr(value), 60)}: give a number")
    if not (math.isfinite(value) and least <= value <= most and value > above):
        raise InputError(f"{name} {value} is out of range: {remedy}")
