"""Batcher: answers many questions at once on one model."""

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Semaphore, Thread
from time import perf_counter
from types import TracebackType
from typing import Self, final

from vlmc.runtime.answers import Answer, whole
from vlmc.runtime.asking import Asked
from vlmc.runtime.batching.alone import Alone
from vlmc.runtime.batching.counts import BatcherState, Counts
from vlmc.runtime.batching.pending import Pending
from vlmc.runtime.batching.reading import Reading
from vlmc.runtime.batching.rows import Row
from vlmc.runtime.batching.running import Running
from vlmc.runtime.engine import State
from vlmc.runtime.errors import Busy, Closed, InputError
from vlmc.runtime.messages import Message
from vlmc.runtime.model import Model
from vlmc.runtime.options import Options
from vlmc.runtime.reply import Reply

GREEDY = Options()
_CUT = "the batcher was closed before the answer was whole"
_MOMENT = 0.002  # seconds between questions that come one after the other, to be read together
_CROWDED = 0.05  # seconds after several questions at once for which nobody is taken to ask alone
_PATIENCE = 0.01  # seconds that a question waits for others to be prepared


@final
class Batcher:
    """Answers questions on a model, up to `max_batch` at once; `max_queue` more may wait.

    Questions join the running batch in the order in which they were asked, and leave it between two tokens. Prompts are read
    in chunks of `chunk` tokens, so that a long one does not hold the others up. A question may have `max_prompt` tokens,
    and its answer `max_new_tokens`; None: as many as the model has room for. The batcher uses the model and does not close
    it. A context manager that closes the batcher at the end.

    Questions are prepared in the threads of those who ask, most often in half as many at once as there are cores.
    """

    def __init__(
        self,
        model: Model,
        max_batch: int = 16,
        max_queue: int = 64,
        chunk: int = 1024,
        *,
        max_prompt: int | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        for name, value in (("max_batch", max_batch), ("max_queue", max_queue), ("chunk", chunk)):
            if value < 1:
                raise InputError(f"{name} is {value}: give at least 1")
        self._model, self._max_batch, self._max_queue = model, max_batch, max_queue
        self._max_prompt, self._max_new_tokens = max_prompt, max_new_tokens
        self._running = Running(model.engine)
        self._reading = Reading(model.engine, chunk, self._running.join)
        self._begun: list[tuple[Row, State]] = []  # which join the batch now
        self._changed = Condition()  # guards what follows; the three above are the thread's own
        self._hands = Semaphore(max(1, (os.cpu_count() or 1) // 2))
        self._waiting: deque[Row] = deque()
        self._inside: list[Row] = []
        self._handed: deque[tuple[Row, State]] = deque()  # begun by those who asked, in their own threads
        self._alone: Row | None = None  # the one that is answered there
        self._crowded = 0.0  # when there were several at once
        self._preparing = 0
        self._closing = self._closed = False
        self._counts = Counts()
        self._thread = Thread(target=self._run, name="vlmc-batcher", daemon=True)
        self._thread.start()

    def ask(self, messages: Sequence[Message], options: Options = GREEDY) -> Pending:
        """Ask the last turn of a conversation; its images are read now, in the caller's thread.

        Raises:
            InputError: as `Model.chat`, or the question is longer, or may have a longer answer, than is allowed.
            Busy: as many questions wait as may wait.
            Closed: the batcher is closed.
        """
        return self._asked(messages, options)[0].pending

    def chat(self, messages: Sequence[Message], options: Options = GREEDY) -> Answer:
        """Ask, and wait for the whole answer.

        Raises:
            InputError, Busy: as `ask`.
            Closed: as `ask`, or it is closed before the answer is whole.
            CheckFailed: the graphs cannot be run on this question.
        """
        return whole(self.stream_chat(messages, options))

    def stream_chat(self, messages: Sequence[Message], options: Options = GREEDY) -> Generator[str, None, Answer]:
        """Ask, and yield the answer piece by piece while it is generated; return it whole.

        As long as there is no other question, it is answered in the caller's thread, a token when the next piece is asked
        for: it is not slower so than by the model itself. When others come, it joins their batch at its next token. Who
        stops before the end, or closes it, gives the question up.

        Raises:
            InputError, Busy: as `ask`, before the first piece.
            Closed, CheckFailed: as `chat`.
        """
        row, here = self._asked(messages, options, here=True)
        if here:
            return Alone(self._model.engine, row, self._is_alone, self._hand, self._ended).stream()
        return _pieces(row.pending)

    def state(self) -> BatcherState:
        """Return what it does, and what it did."""
        with self._changed:
            self._forget()
            running = len(self._inside) + len(self._handed) + (self._alone is not None)
            return self._counts.state(len(self._waiting) + self._preparing, running)

    def close(self, wait: float = 0) -> None:
        """Take no more questions, go on for so many seconds with those that were asked, and end the rest as `Closed`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._has_questions(), wait)
            self._closed = True
            self._changed.notify_all()
            left = [*self._inside, *self._waiting, *(row for row, _ in self._handed)]
        for row in left:
            row.pending.end(Closed(_CUT))
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _reserve(self) -> None:
        with self._changed:
            if self._closing:
                raise Closed("the batcher is closed: make another one")
            self._forget()
            if len(self._waiting) + self._preparing >= self._max_queue:
                self._counts.refused += 1
                raise Busy(f"{self._max_queue} questions wait already: ask again later")
            self._preparing += 1

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for others to prepare their questions, but not for long: many at once only take Python from each other."""
        waited = self._hands.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if waited:
                self._hands.release()

    def _asked(self, messages: Sequence[Message], options: Options, *, here: bool = False) -> tuple[Row, bool]:
        """Prepare a question, which then waits for its turn; or, if it may be answered `here` and is alone, does not."""
        began = perf_counter()
        self._reserve()
        row = None
        try:
            with self._turn():
                asked = self._model.prepare(messages, options)
            self._check_limits(asked)
            row = Row(Pending(), asked, Reply(asked, self._model.text, self._model.deployment.stop_ids, began))
        finally:
            alone = self._prepared(row, here=here)
        return row, alone

    def _prepared(self, row: Row | None, *, here: bool) -> bool:
        """Let a question wait for its turn, if it is a good one, in the place that was reserved; or say that it is alone."""
        with self._changed:
            self._preparing -= 1
            if row is not None and self._closing:
                raise Closed("the batcher is closed: make another one")
            crowded = perf_counter() - self._crowded < _CROWDED  # the others may ask again in a moment
            if row is not None and here and not (crowded or self._has_questions()):
                self._alone = row
                return True
            if row is not None:
                self._waiting.append(row)
            if len(self._waiting) == 1 or not self._preparing:  # others come in a moment
                self._changed.notify_all()
            return False

    def _has_questions(self) -> bool:
        self._forget()
        return bool(self._inside or self._waiting or self._handed or self._preparing or self._alone)

    def _is_alone(self) -> bool:
        """Whether the question that is answered in its asker's thread is still the only one; a look, for every token."""
        return not (self._closing or self._inside or self._waiting or self._handed or self._preparing)

    def _hand(self, row: Row, state: State) -> None:
        """Let the question that was alone go on in the batch."""
        with self._changed:
            self._alone = None
            self._handed.append((row, state))
            if self._closed:
                row.fail(Closed(_CUT))
                self._forget()
            self._changed.notify_all()

    def _ended(self, row: Row) -> None:
        """The question that was alone has its end."""
        with self._changed:
            self._alone = None
            self._counts.ended(row)
            if self._closing:
                self._changed.notify_all()

    def _check_limits(self, asked: Asked) -> None:
        if self._max_prompt is not None and asked.length > self._max_prompt:
            raise InputError(
                f"the question and its images take {asked.length} tokens: at most {self._max_prompt} may be asked"
            )
        most = self._max_new_tokens
        if most is not None and asked.options.max_new_tokens > most:
            raise InputError(f"max_new_tokens is {asked.options.max_new_tokens}: give at most {most}")

    def _run(self) -> None:
        """Read prompts and make tokens by turns, until the batcher is closed and nothing is left to do."""
        while self._admit():
            try:
                while self._begun:
                    self._running.take_over(*self._begun.pop())
                if self._reading.waits:
                    self._running.tell()  # not after it
                    self._reading.turn()
                self._running.step()
            except Exception as error:  # such as memory that ran out between two tokens: the next questions may fit
                for row in self._inside:
                    row.fail(error)

    def _admit(self) -> bool:
        """Let questions in, in their order, as far as there is room; wait where there is nothing to do."""
        with self._changed:
            ended = sum(row.pending.done for row in self._inside)
            if self._inside and not (ended or self._waiting or self._handed or self._preparing):
                return True
            if len(self._inside) > 1:
                self._crowded = perf_counter()
            self._forget()
            while not (self._inside or self._waiting or self._handed or self._ends()):
                self._changed.wait()
                self._forget()
            room = self._max_batch - len(self._inside)
            self._begun = [self._handed.popleft() for _ in range(min(room, len(self._handed)))]
            room -= len(self._begun)
            self._linger(room, asking=0 < len(self._waiting) < ended)
            new = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._inside += [*(row for row, _ in self._begun), *new]
        self._reading.add(new)
        return bool(self._inside)

    def _ends(self) -> bool:
        """Whether no question can come any more, nor go on here that was alone."""
        return self._closed or (self._closing and self._alone is None)

    def _linger(self, room: int, *, asking: bool) -> None:
        """Wait for questions that are being prepared, as long as one comes every moment: they are read with those that wait.

        `asking`: of those who have just got an answer, others may ask again as well.
        """
        before = 0
        while (self._preparing or asking) and before < len(self._waiting) < room and not self._closing:
            before, asking = len(self._waiting), False
            self._changed.wait(_MOMENT)

    def _forget(self) -> None:
        """Drop the questions that have ended; those who wait for the last one are told."""
        rows = [*self._inside, *self._waiting, *(row for row, _ in self._handed)]
        ended = [row for row in rows if row.pending.done]
        if not ended:
            return
        for row in ended:
            self._counts.ended(row)
        self._inside = [row for row in self._inside if not row.pending.done]
        self._waiting = deque(row for row in self._waiting if not row.pending.done)
        self._handed = deque((row, state) for row, state in self._handed if not row.pending.done)
        if self._closing and not (self._inside or self._waiting or self._handed):
            self._changed.notify_all()


def _pieces(pending: Pending) -> Generator[str, None, Answer]:
    try:
        yield from pending
        return pending.answer()
    finally:
        if not pending.done:  # it was given up
            pending.cancel()
