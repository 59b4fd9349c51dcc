"""Pending: an answer that is on its way, for threads and for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from threading import Condition
from typing import final

from vlmc.runtime.answers import Answer
from vlmc.runtime.errors import Cancelled, VlmcError


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
        self._changed = Condition()
        self._pieces: list[str] = []
        self._end: Answer | VlmcError | None = None
        self._wakers: list[Callable[[], object]] = []

    def __iter__(self) -> Iterator[str]:
        count = 0
        while True:
            new = self._after(count)
            if not new:
                self._whole()
                return
            yield from new
            count += len(new)

    async def __aiter__(self) -> AsyncIterator[str]:
        count = 0
        while True:
            woken = self._waker()
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
        with self._changed:
            if not self._changed.wait_for(lambda: self._end is not None, timeout):
                raise TimeoutError(f"no answer after {timeout} s")
        return self._whole()

    async def wait(self) -> Answer:
        """Wait for the whole answer without blocking the event loop."""
        while self._end is None:
            woken = self._waker()
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
        """Add a piece of the text; only the batcher does."""
        if piece and not self.done:
            with self._changed:
                self._pieces.append(piece)
            self._tell()

    def end(self, end: Answer | VlmcError) -> bool:
        """End it, unless it ended before; return whether it was this that ended it. Only the batcher gives answers."""
        with self._changed:
            if self._end is not None:
                return False
            self._end = end
        self._tell()
        return True

    def _tell(self) -> None:
        with self._changed:
            wakers, self._wakers = self._wakers, []
            self._changed.notify_all()
        for wake in wakers:
            with suppress(RuntimeError):  # its event loop was closed
                wake()

    def _waker(self) -> asyncio.Event:
        """Return an event of the running loop that the next change sets."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        with self._changed:
            self._wakers.append(partial(loop.call_soon_threadsafe, woken.set))
        return woken

    def _after(self, count: int) -> list[str]:
        """Wait for pieces after the first `count`, and return them; none after the end."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._pieces) > count or self._end is not None)
            return self._pieces[count:]

    def _whole(self) -> Answer:
        if isinstance(self._end, VlmcError):
            raise self._end.with_traceback(None)
        assert self._end is not None, "the answer is not whole"
        return self._end
