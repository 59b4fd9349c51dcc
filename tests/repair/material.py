"""What the tests of repair and merge work on: pico models, pruned, and questions that they can be trained on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests import pico
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.machine.progress import Progress, Task
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneMethod, PruneSettings, RepairSettings
from vlmc.toolchain.stages.prune import Prune

ANSWERS = ("seven", "two red digits", "blue", "yes")
OPTIONS = RepairSettings(steps=20, batch=4, lr=1e-2, rank=4, alpha=8.0, checkpoint_every=5)


def samples(count: int = 12) -> list[Sample]:
    """Return questions about random images, with answers of one to three words."""
    asked = [pico.QUESTIONS[index % len(pico.QUESTIONS)] for index in range(count)]
    return [Sample(f"s{i}", (pico.picture(i),), asked[i], ANSWERS[i % len(ANSWERS)], "kind") for i in range(count)]


def dense(family: str, folder: Path) -> SavedModel:
    """Write a family's pico model."""
    return SavedModel.find(str(pico.save(family, folder)))


def pruned(source: SavedModel, folder: Path, method: PruneMethod = "magnitude") -> SavedModel:
    """Prune a pico model to 2:4."""
    Prune(PruneSettings(method=method, calibration=4)).run(source, folder)
    return SavedModel.find(str(folder))


@cache
def encoder(source: SavedModel) -> Encoder:
    """Return the encoder of a model, made once."""
    return Encoder(source.load_processor(), source.family, source.load())


class Killed(Exception):
    """Stands in for the signal that ends a run."""


class KilledAt(Progress):
    """Ends a run after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(quiet=True)
        self.steps = steps

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        yield _Fuse(self.steps - done)


class _Fuse(Task):
    def __init__(self, left: int) -> None:
        self.left = left

    def advance(self, note: str | Sequence[str] = ()) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed
