"""One model dense, pruned, repaired, and repaired without the mask: made by the stages themselves, then questioned."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate import Accuracy, evaluate
from vlmc.toolchain.evaluate.compare import measure
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.repair.adapter_files import FOLDER, attach_saved, load_adapter
from vlmc.toolchain.repair.methods import METHODS
from vlmc.toolchain.settings import PruneSettings, RepairSettings
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.stages.repair import Repair

QUIET = Progress(quiet=True)


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


class Variants:
    """Makes the variants of one model, and asks each the same questions; pruned artifacts stay in `scratch`."""

    def __init__(self, model: str, samples: Sequence[Sample], scratch: Path) -> None:
        self.source, self.samples, self.scratch = Checkpoint.find(model), samples, scratch

    def dense(self) -> Trial:
        """Measure the model as it is."""
        return self.trial(self.source, Stopwatch())

    def pruned(self, options: PruneSettings) -> tuple[Checkpoint, Trial]:
        """Prune; no seed changes the result."""
        watch, folder = Stopwatch(), self.scratch / options.method
        with watch.step("prune"):
            Prune(options).run(self.source, folder)
        checkpoint = Checkpoint(options.method, folder)
        return checkpoint, self.trial(checkpoint, watch)

    def repaired(self, pruned: Checkpoint, options: RepairSettings, seed: int) -> Trial:
        """Repair with the options' method, and merge; an adapter that is never merged is measured where it sits."""
        watch = Stopwatch()
        with TemporaryDirectory(dir=self.scratch) as folder:
            adapted, merged = Path(folder) / "adapted", Path(folder) / "merged"
            with watch.step("repair"):
                Repair(options, seed).run(pruned, adapted)
            if METHODS[options.method].merged is None:
                return self._apart(Checkpoint("adapted", adapted), watch)
            with watch.step("merge"):
                Merge().run(Checkpoint("adapted", adapted), merged)
            return self.trial(Checkpoint("merged", merged), watch)

    def remasked(self, pruned: Checkpoint, options: RepairSettings, seed: int) -> Trial:
        """Repair with LoRA, merge and prune again."""
        return self.repaired(pruned, options.model_copy(update={"method": "lora-remask"}), seed)

    def _apart(self, adapted: Checkpoint, watch: Stopwatch) -> Trial:
        artifact, model, processor = Artifact.open(adapted.folder), adapted.load(), adapted.load_processor()
        attach_saved(model, load_adapter(artifact.root / FOLDER), load_masks(artifact.root, artifact.manifest))
        encoder = Encoder(processor, artifact.manifest.serving)
        accuracy = evaluate(model, encoder, self.samples, QUIET, title=adapted.name)
        measures = {step.stage: step.measures for step in artifact.manifest.history}
        return Trial(accuracy, watch.seconds, _sizes(adapted), measures)

    def trial(self, checkpoint: Checkpoint, watch: Stopwatch) -> Trial:
        """Measure a checkpoint; the stopwatch tells what making it took."""
        accuracy = measure(checkpoint, self.samples, QUIET, title=checkpoint.name)
        history = checkpoint.artifact.manifest.history if checkpoint.artifact is not None else ()
        return Trial(accuracy, watch.seconds, _sizes(checkpoint), {step.stage: step.measures for step in history})


def _sizes(checkpoint: Checkpoint) -> dict[str, int]:
    sizes = {path.name: path.stat().st_size for path in checkpoint.folder.glob("*.safetensors")}
    masks = sizes.pop("masks.safetensors", 0)
    return {"weights": sum(sizes.values())} | ({"masks": masks} if masks else {})
