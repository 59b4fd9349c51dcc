"""Answer: what a question is answered with, and how long it took."""

from collections.abc import Generator
from dataclasses import dataclass, field
from threading import Event
from typing import Literal, final

from vlmc.runtime.errors import Cancelled

Finish = Literal["stop", "length"]


@final
@dataclass(frozen=True)
class Timings:
    """Seconds since the question was asked, waiting and reading the images included.

    `first_token` is the time to the first token (TTFT), `total` the time until the answer was whole.
    """

    first_token: float
    total: float
    tokens: int

    @property
    def tokens_per_second(self) -> float | None:
        """How quickly tokens came after the first one; None for an answer of one token."""
        return (self.tokens - 1) / max(self.total - self.first_token, 1e-9) if self.tokens > 1 else None


@final
@dataclass(frozen=True)
class Answer:
    """An answer; `str()` gives its text.

    `tokens` are the generated ids, with the one that ends the answer; `finish` says what ended it: the model or a stop
    string (`stop`), or the limit of tokens or positions (`length`). Answers are equal whatever time they took.
    """

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish: Finish
    timings: Timings = field(compare=False)

    def __str__(self) -> str:
        return self.text


def whole(pieces: Generator[str, None, Answer], given_up: Event | None = None) -> Answer:
    """Run to the end of an answer that comes in pieces, and return it whole.

    Raises:
        Cancelled: it was `given_up` before.
    """
    while given_up is None or not given_up.is_set():
        try:
            next(pieces)
        except StopIteration as end:
            answer: Answer = end.value
            return answer
    raise Cancelled("the answer was cancelled")
