"""Pending: an answer that is on its way, for threads and for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from threading import Condition, Lock
from typing import final

from vlmc.runtime.answers import Answer
from vlmc.runtime.errors import Cancelled, VlmcError

_PAUSE = 0.005  # seconds between two pieces of which who waits hears: more often is more than anybody sees

Waker = Callable[[], object]
"""Wakes somebody who waits in an event loop."""


@final
class Pending:
    """An answer that is on its way: iterate over the pieces of its text, or take it whole.

    Both may be done from any thread, or with `async for` and `await pending.wait()` in any event loop, and more than once:
    every iteration begins at the first piece.

    Raises:
        Cancelled, Closed: at the end of an iteration, and by `answer` and `wait`: there is no whole answer.
        CheckFailed: the graphs cannot be run on this question.
    """

    def __init__(self) -> None:
        lock = Lock()
        self._changed, self._ended = Condition(lock), Condition(lock)
        self._pieces: list[str] = []
        self._untold, self._told = False, 0.0
        self._end: Answer | VlmcError | None = None
        self._readers: list[Waker] = []
        self._waiters: list[Waker] = []  # for the end alone: they are not woken for every token

    def __iter__(self) -> Iterator[str]:
        return self.rest(0)

    def rest(self, count: int) -> Iterator[str]:
        """Yield the pieces after the first `count`, waiting for those to come."""
        while new := self.after(count, wait=True):
            yield from new
            count += len(new)
        self._whole()

    def after(self, count: int, *, wait: bool = False) -> list[str]:
        """Return the pieces after the first `count` that are there; `wait` until there is one, or the end."""
        if wait:
            with self._changed:
                self._changed.wait_for(lambda: len(self._pieces) > count or self._end is not None)
        return self._pieces[count:]

    async def __aiter__(self) -> AsyncIterator[str]:
        count = 0
        while True:
            woken = self._waker(self._readers)
            new = self._pieces[count:]
            if new:
                for piece in new:
                    yield piece
                count += len(new)
            elif self._end is not None:
                self._whole()
                return
            else:
                await woken.wait()

    def answer(self, timeout: float | None = None) -> Answer:
        """Wait for the whole answer, at most so many seconds.

        Raises:
            TimeoutError: it takes longer; the question is not cancelled.
        """
        with self._ended:
            if not self._ended.wait_for(lambda: self._end is not None, timeout):
                raise TimeoutError(f"no answer after {timeout} s")
        return self._whole()

    async def wait(self) -> Answer:
        """Wait for the whole answer without blocking the event loop."""
        while self._end is None:
            woken = self._waker(self._waiters)
            if self._end is None:
                await woken.wait()
        return self._whole()

    @property
    def done(self) -> bool:
        """Whether the answer is whole, or there will be none."""
        return self._end is not None

    @property
    def ended(self) -> Answer | VlmcError | None:
        """The whole answer, or the error in place of it; None: not yet."""
        return self._end

    def cancel(self) -> None:
        """Give the question up: its place in the batch is free for another one after the token that is being made."""
        self.end(Cancelled("the answer was cancelled"))

    def add(self, piece: str) -> None:
        """Add a piece of the text, of which who waits hears by `tell`, or at the end; only the batcher does."""
        if piece and not self.done:
            self._pieces.append(piece)
            self._untold = True

    def tell(self, now: float | None = None) -> None:
        """Wake who waits for the pieces that were added; only the batcher does.

        With the time `now`, in seconds, nobody is woken who was so just before: it takes a core from the next token.
        """
        if self._untold and (now is None or now - self._told >= _PAUSE):
            self._untold, self._told = False, now or self._told
            with self._changed:
                self._changed.notify_all()
                wakers = _taken(self._readers)
            _wake(wakers)

    def end(self, end: Answer | VlmcError) -> bool:
        """End it, unless it ended before; return whether it was this that ended it. Only the batcher gives answers."""
        with self._changed:
            if self._end is not None:
                return False
            self._end = end
            self._changed.notify_all()
            self._ended.notify_all()
            wakers = _taken(self._readers) + _taken(self._waiters)
        _wake(wakers)
        return True

    def _waker(self, wakers: list[Waker]) -> asyncio.Event:
        """Return an event of the running loop that is set the next time that these wakers are called."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        with self._changed:
            wakers.append(partial(loop.call_soon_threadsafe, woken.set))
        return woken

    def _whole(self) -> Answer:
        if isinstance(self._end, VlmcError):
            raise self._end.with_traceback(None)
        assert self._end is not None, "the answer is not whole"
        return self._end


def _taken(wakers: list[Waker]) -> list[Waker]:
    """Empty a list of wakers, and return those that were in it."""
    found, wakers[:] = wakers[:], []
    return found


def _wake(wakers: Sequence[Waker]) -> None:
    for wake in wakers:
        with suppress(RuntimeError):  # its event loop was closed
            wake()
