"""Trials: variants of one model, each made by the steps themselves and asked the same questions."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.accuracy import Accuracy
from vlmc.toolchain.evaluate.compare import measure
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.prune import Prune


@dataclass(frozen=True)
class Trial:
    """A variant made once: its accuracy, each step's seconds and measures, and the bytes of each part of its weights."""

    accuracy: Accuracy
    seconds: dict[str, float]
    sizes: dict[str, int]
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)


class Stopwatch:
    """Keeps the seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


class Trials:
    """Questions a model and what is made of it; every variant starts from the model's own files."""

    def __init__(self, source: SavedModel, samples: Sequence[Sample]) -> None:
        self.source, self.samples = source, samples

    def dense(self) -> Trial:
        """Question the model as it is."""
        return self.question(self.source, Stopwatch())

    def pruned(self, options: PruneSettings, folder: Path, seed: int = 0) -> tuple[SavedModel, Trial]:
        """Prune into `folder`, and question the result.

        Raises:
            InputError: the model cannot be pruned so, or `folder` is taken.
        """
        watch = Stopwatch()
        with watch.step("prune"):
            Prune(options, seed).run(self.source, folder)
        saved = SavedModel(folder.name, folder)
        return saved, self.question(saved, watch)

    def question(self, saved: SavedModel, watch: Stopwatch) -> Trial:
        """Question a variant that took the watch's seconds to make."""
        accuracy = measure(saved, self.samples, Progress(quiet=True), title=saved.name)
        history = saved.artifact.manifest.history if saved.artifact is not None else ()
        return Trial(accuracy, watch.seconds, weight_bytes(saved), {step.stage: step.measures for step in history})


def weight_bytes(saved: SavedModel) -> dict[str, int]:
    """Return the bytes of a model's weights on disk, and of its masks where it has some."""
    sizes = {path.name: path.stat().st_size for path in saved.folder.glob("*.safetensors")}
    masks = sizes.pop("masks.safetensors", 0)
    return {"weights": sum(sizes.values())} | ({"masks": masks} if masks else {})
