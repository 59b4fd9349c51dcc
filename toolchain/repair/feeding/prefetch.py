"""Batches encoded ahead: threads open the images and run the model's processor while a step computes.

Decoding, resizing and tokenizing release Python's lock for most of their time. With any number of threads, none included,
the same batches come in the same order, and bad data is reported with the same message at the same step.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from threading import Event, local
from typing import NamedTuple

import torch

from vlmc.runtime.errors import VlmcError
from vlmc.toolchain.data.encode import Encoded
from vlmc.toolchain.data.sequences.screening import screens
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.repair.feeding.batches import Batch, Batches, split
from vlmc.toolchain.settings import TrainingSettings

DEPTH = 2  # passes that are encoded ahead for each thread


class Pass(NamedTuple):
    """Some of a step's samples: their places in the data, and their batch."""

    indices: Sequence[int]
    batch: Batch


class Prefetch:
    """The passes that this process of the group makes, from `batches`; `--workers` threads encode them ahead.

    The threads start when the first step is asked for, and again where a step is not the one after the last.
    """

    def __init__(self, batches: Batches, group: ProcessGroup, options: TrainingSettings) -> None:
        self.batches, self.group, self.options = batches, group, options
        self._encoded: Generator[_Encoded] | None = None
        self._next = 0

    def at(self, step: int) -> list[Pass]:
        """Return the passes of a step, counted from 0, on the group's device.

        Raises:
            VlmcError: a sample cannot be encoded.
        """
        if self._encoded is None or step != self._next:
            self.close()
            self._encoded = self._open(step)
        self._next = step + 1
        return [self._take(next(self._encoded)) for _ in range(self.options.accumulate)]

    def close(self) -> None:
        """Stop the threads, and drop what they have encoded."""
        if self._encoded is not None:
            self._encoded.close()
        self._encoded = None

    def _open(self, step: int) -> "Generator[_Encoded]":
        """Yield the passes from a step on."""
        if self.options.workers:
            yield from _ahead(self.batches, self.options.workers, self.group.device, self._indices(step))
        else:
            yield from map(_Encoding(self.batches), self._indices(step))

    def _indices(self, start: int) -> Iterator[Sequence[int]]:
        for step in range(start, self.options.steps):
            yield from split(own_indices(self.batches, step, self.group), self.options.accumulate)

    def _take(self, encoded: "_Encoded") -> Pass:
        for screen, found in zip(screens(self.batches.samples), encoded.bad, strict=True):
            for place, reason in found:
                screen.note(place, reason)
        if isinstance(encoded.batch, VlmcError):
            raise encoded.batch
        return Pass(encoded.indices, encoded.batch.to(self.group.device))


def own_indices(batches: Batches, step: int, group: ProcessGroup) -> Sequence[int]:
    """Return which samples of a step this process of the group sees."""
    return split(batches.indices(step), group.size)[group.rank]


def _ahead(batches: Batches, workers: int, device: torch.device, indices: Iterator[Sequence[int]]) -> "Generator[_Encoded]":
    """Yield passes in order, `DEPTH` of them ahead for each thread; each thread has a copy of the batches.

    The copies do not log bad images: their threads meet them in no fixed order.
    """
    own, encodings = local(), [_Encoding(batches.copy()) for _ in range(workers)]
    spare = list(encodings)
    for encoding in encodings:
        encoding.silence()

    def begin() -> None:
        own.encoding = spare.pop()
        if device.type == "cuda":
            torch.cuda.set_device(device)  # page-locked memory is that of the thread's current GPU

    def encode(some: Sequence[int]) -> _Encoded:
        encoded: _Encoded = own.encoding(some)
        return encoded.pin_memory() if device.type == "cuda" else encoded

    pool = ThreadPoolExecutor(workers, "encode", begin)
    try:
        pending = deque(pool.submit(encode, some) for some in islice(indices, DEPTH * workers))
        while pending:
            first = pending.popleft()
            pending.extend(pool.submit(encode, some) for some in islice(indices, 1))
            yield first.result()
    finally:
        for encoding in encodings:
            encoding.stopped.set()
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Encoded:
    """An encoded pass: its batch, or why there is none, and the bad images that were first met in it, by screen."""

    indices: Sequence[int]
    batch: Batch | VlmcError
    bad: list[list[tuple[int, str]]]

    def pin_memory(self) -> "_Encoded":
        """Return the pass in page-locked memory."""
        return self if isinstance(self.batch, VlmcError) else replace(self, batch=self.batch.pin_memory())


class _Encoding:
    """Encodes passes, given as samples' places, until it is stopped.

    An error is returned, not raised: whoever takes the passes in order raises it, after the bad images that come before it.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches, self.stopped, self._screens = batches, Event(), screens(batches.samples)
        self._reported = [len(screen.bad) for screen in self._screens]

    def __call__(self, indices: Sequence[int]) -> _Encoded:
        batch: Batch | VlmcError
        try:
            batch = self.batches.stack([self._encode(index) for index in indices])
        except VlmcError as error:
            batch = error
        return _Encoded(indices, batch, self._news())

    def silence(self) -> None:
        """Log no bad images from now on."""
        for screen in self._screens:
            screen.silent = True

    def _encode(self, index: int) -> Encoded:
        if self.stopped.is_set():
            raise CancelledError
        return self.batches.encode(index)

    def _news(self) -> list[list[tuple[int, str]]]:
        """Return the bad images that were found since the last time, by screen."""
        pairs = zip(self._screens, self._reported, strict=True)
        news = [list(islice(screen.bad.items(), reported, None)) for screen, reported in pairs]
        self._reported = [len(screen.bad) for screen in self._screens]
        return news
