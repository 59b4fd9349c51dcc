"""Batches encoded ahead: background processes open the pictures and run the model's processor while a step runs.

torch's DataLoader does it. With any number of processes, none included, the same batches come in the same order, and
what is wrong with the data comes out in the same words at the same step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from vlmc.runtime.errors import EnvironmentLacks, VlmcError
from vlmc.toolchain.data.sequences.screening import screens
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.repair.feeding.batches import Batch, Batches, split
from vlmc.toolchain.settings import TrainingSettings

_LOST = ("DataLoader worker", "Pin memory thread")  # how torch's messages begin where a process has gone


class Pass(NamedTuple):
    """Some of a step's samples: their places in the data, and their batch."""

    indices: Sequence[int]
    batch: Batch


class Feed:
    """The passes that this process of the group makes, from `batches`; `--workers` processes encode them ahead.

    The processes start when the first step is asked for, and again where a step is not the one after the last.
    """

    def __init__(self, batches: Batches, group: ProcessGroup, options: TrainingSettings) -> None:
        self.batches, self.group, self.options = batches, group, options
        self._source: Any = None  # the DataLoader's iterator
        self._next = 0

    def at(self, step: int) -> list[Pass]:
        """Return the passes of a step, counted from 0, on the group's device.

        Raises:
            VlmcError: a sample cannot be encoded.
            EnvironmentLacks: a background process was killed.
        """
        if self._source is None or step != self._next:
            self.close()
            self._open(step)
        self._next = step + 1
        return [self._take() for _ in range(self.options.accumulate)]

    def close(self) -> None:
        """End the background processes, and drop what they have encoded."""
        if self._source is not None and self.options.workers:
            with _background().held():
                self._source._shutdown_workers()  # torch ends them when the garbage collector finds them, else not
        self._source = None

    def _open(self, step: int) -> None:
        if not (workers := self.options.workers):
            self._source = iter(self._loader(step, self.batches))
            return
        background = _background()
        pinned = self.group.device.type == "cuda"
        started = {"multiprocessing_context": background.context(), "worker_init_fn": background.settle}
        loader = self._loader(step, self.batches.shared_by(workers), num_workers=workers, pin_memory=pinned, **started)
        with background.held():
            self._source = iter(loader)

    def _loader(self, step: int, batches: Batches, **options: Any) -> "DataLoader[_Encoded]":
        """Return what yields the passes from a step on: the sampler's items are whole passes, so nothing is batched."""
        kept = torch.Generator()  # else the global one would be drawn from
        return DataLoader(_Encoding(batches), sampler=self._indices(step), batch_size=None, generator=kept, **options)

    def _indices(self, start: int) -> Iterator[Sequence[int]]:
        for step in range(start, self.options.steps):
            mine = split(self.batches.indices(step), self.group.size)[self.group.rank]
            yield from split(mine, self.options.accumulate)

    def _take(self) -> Pass:
        encoded = self._receive()
        for screen, found in zip(screens(self.batches.samples), encoded.bad, strict=True):
            for place, reason in found:
                screen.note(place, reason)
        if isinstance(encoded.batch, VlmcError):
            raise encoded.batch
        return Pass(encoded.indices, encoded.batch.to(self.group.device))

    def _receive(self) -> "_Encoded":
        try:
            encoded: _Encoded = next(self._source)
        except (RuntimeError, ConnectionError, EOFError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith(_LOST):
                raise
            raise EnvironmentLacks(
                "a background process that encodes batches has ended, most likely because memory or shared memory "
                f"(/dev/shm) ran out: take fewer than --workers {self.options.workers}, or 0"
            ) from error
        return encoded


def _background() -> ModuleType:
    """Import what starts processes, which is not there on every system (Windows): only where some are asked for."""
    from vlmc.toolchain.repair.feeding import background

    return background


@dataclass(frozen=True)
class _Encoded:
    """A pass as a background process hands it over: its batch, or why there is none, and the bad pictures first met in it.

    An error is a value here, for the DataLoader would raise another one, whose text is the whole traceback.
    """

    indices: Sequence[int]
    batch: Batch | VlmcError
    bad: list[list[tuple[int, str]]]

    def pin_memory(self) -> "_Encoded":
        """Return the pass in page-locked memory, for the DataLoader."""
        return self if isinstance(self.batch, VlmcError) else replace(self, batch=self.batch.pin_memory())


class _Encoding(Dataset[_Encoded]):
    """Makes batches of samples' places; it is sent to the background processes, without the model."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self._screens = batches, screens(batches.samples)
        self._told = [len(screen.bad) for screen in self._screens]

    def __getitem__(self, indices: Sequence[int]) -> _Encoded:
        batch: Batch | VlmcError
        try:
            batch = self.batches.of(indices)
        except VlmcError as error:
            batch = error
        return _Encoded(indices, batch, self._news())

    def _news(self) -> list[list[tuple[int, str]]]:
        """Return the bad pictures that were found since the last time, by screen."""
        news = [list(islice(one.bad.items(), told, None)) for one, told in zip(self._screens, self._told, strict=True)]
        self._told = [len(screen.bad) for screen in self._screens]
        return news
