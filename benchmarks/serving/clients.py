"""Clients that ask one question after the other, all at once, and what each answer took."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Barrier, Lock, Thread
from time import perf_counter
from typing import final

import numpy as np

from vlmc.runtime import Answer, Batcher, Message, Model, Options

Ask = Callable[[Message], tuple[Answer, float]]
"""Answers a question; returns the answer, and the seconds until its first piece of text or, without one, its end."""


@dataclass(frozen=True)
class Load:
    """What some clients saw: seconds in all, and per question the seconds to the first text, and the tokens."""

    seconds: float
    first: tuple[float, ...]
    tokens: tuple[tuple[int, ...], ...]

    @property
    def throughput(self) -> float:
        """Tokens a second, of all clients together."""
        return sum(map(len, self.tokens)) / self.seconds

    def first_text(self, percent: float) -> float:
        """Return a percentile of the time to the first text, in milliseconds."""
        return 1000 * float(np.percentile(self.first, percent))


def load(ask: Ask, questions: Sequence[Message], clients: int) -> Load:
    """Let clients ask the questions, each the next one as soon as it has an answer."""
    left, found = deque(enumerate(questions)), dict[int, tuple[Answer, float]]()
    barrier = Barrier(clients + 1)

    def client() -> None:
        barrier.wait()
        while True:
            try:
                index, question = left.popleft()
            except IndexError:
                return
            found[index] = ask(question)

    threads = [Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    began = perf_counter()
    barrier.wait()
    for thread in threads:
        thread.join()
    seconds = perf_counter() - began
    answers = [found[index] for index in range(len(questions))]
    return Load(seconds, tuple(first for _, first in answers), tuple(answer.tokens for answer, _ in answers))


def directly(model: Model, options: Options) -> Ask:
    """Ask the model in the client's own thread."""
    return lambda question: _timed(lambda: model.stream_chat([question], max_new_tokens=options.max_new_tokens))


def in_turn(ask: Ask) -> Ask:
    """One client at a time, in the order in which they came."""
    turns = Turns()

    def asked(question: Message) -> tuple[Answer, float]:
        began = perf_counter()
        with turns.next():
            waited = perf_counter() - began
            answer, first = ask(question)
        return answer, waited + first

    return asked


def batched(batcher: Batcher, options: Options) -> Ask:
    """Ask a batcher."""
    return lambda question: _timed(lambda: batcher.stream_chat([question], options))


def _timed(ask: Callable[[], Generator[str, None, Answer]]) -> tuple[Answer, float]:
    began, first = perf_counter(), None
    pieces = ask()
    while True:
        try:
            next(pieces)
            first = first or perf_counter() - began
        except StopIteration as end:
            return end.value, first or perf_counter() - began


@final
class Turns:
    """A lock that is given to those who wait in the order in which they came."""

    def __init__(self) -> None:
        self._guard, self._waiting = Lock(), deque[Lock]()

    @contextmanager
    def next(self) -> Iterator[None]:
        """Wait for one's turn."""
        own = Lock()
        own.acquire()
        with self._guard:
            first = not self._waiting
            self._waiting.append(own)
        if not first:
            own.acquire()
        try:
            yield
        finally:
            with self._guard:
                self._waiting.popleft()
                if self._waiting:
                    self._waiting[0].release()
