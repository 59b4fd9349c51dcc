"""Trials: variants of one model, each made by vlmc's own steps and evaluated on the same questions."""

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
    """One variant: its accuracy, the seconds and measures of each step, and the bytes of its weights."""

    accuracy: Accuracy
    seconds: dict[str, float]
    sizes: dict[str, int]
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)


class Stopwatch:
    """Measures the seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


class Trials:
    """Evaluates a model and variants of it; each variant starts from the model's own files."""

    def __init__(self, source: SavedModel, samples: Sequence[Sample]) -> None:
        self.source, self.samples = source, samples

    def dense(self) -> Trial:
        """Evaluate the dense model."""
        return self.question(self.source, Stopwatch())

    def pruned(self, options: PruneSettings, folder: Path, seed: int = 0) -> tuple[SavedModel, Trial]:
        """Prune into `folder`, and evaluate the result.

        Raises:
            InputError: the model cannot be pruned with these options, or `folder` exists.
        """
        watch = Stopwatch()
        with watch.step("prune"):
            Prune(options, seed).run(self.source, folder)
        saved = SavedModel(folder.name, folder)
        return saved, self.question(saved, watch)

    def question(self, saved: SavedModel, watch: Stopwatch) -> Trial:
        """Evaluate a variant; the watch has the seconds of its steps."""
        accuracy = measure(saved, self.samples, Progress(quiet=True), title=saved.name)
        history = saved.artifact.manifest.history if saved.artifact is not None else ()
        return Trial(accuracy, watch.seconds, weight_bytes(saved), {step.stage: step.measures for step in history})


def weight_bytes(saved: SavedModel) -> dict[str, int]:
    """Return the bytes of a model's weights on disk, and of its masks if it has any."""
    sizes = {path.name: path.stat().st_size for path in saved.folder.glob("*.safetensors")}
    masks = sizes.pop("masks.safetensors", 0)
    return {"weights": sum(sizes.values())} | ({"masks": masks} if masks else {})
