"""One model dense, pruned, repaired, and repaired without the mask: made by the stages themselves, then questioned."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from remasked import lora_remasked

from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate import evaluate
from vlmc.toolchain.evaluate.trials import Stopwatch, Trial, Trials, weight_bytes
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.settings import PruneSettings, RepairSettings
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.repair import Repair


class Variants:
    """Makes the variants of one model, and asks each the same questions; pruned artifacts stay in `scratch`."""

    def __init__(self, model: str, samples: Sequence[Sample], scratch: Path) -> None:
        self.trials, self.scratch = Trials(Checkpoint.find(model), samples), scratch

    def dense(self) -> Trial:
        """Measure the model as it is."""
        return self.trials.dense()

    def pruned(self, options: PruneSettings) -> tuple[Checkpoint, Trial]:
        """Prune; no seed changes the result."""
        return self.trials.pruned(options, self.scratch / options.method)

    def ressa(self, pruned: Checkpoint, options: RepairSettings, seed: int) -> Trial:
        """Repair with RESSA and merge."""
        watch = Stopwatch()
        with TemporaryDirectory(dir=self.scratch) as folder:
            adapted, merged = Path(folder) / "adapted", Path(folder) / "merged"
            with watch.step("repair"):
                Repair(options, seed).run(pruned, adapted)
            with watch.step("merge"):
                Merge().run(Checkpoint("adapted", adapted), merged)
            return self.trials.question(Checkpoint("merged", merged), watch)

    def remasked(self, pruned: Checkpoint, options: RepairSettings, seed: int) -> Trial:
        """Repair with LoRA, merge and prune again."""
        watch = Stopwatch()
        with TemporaryDirectory(dir=self.scratch) as folder, watch.step("repair"):
            model = lora_remasked(pruned, options, seed, Path(folder) / "checkpoints")
        encoder = Encoder(pruned.load_processor(), pruned.family, model)
        accuracy = evaluate(model, encoder, self.trials.samples, Progress(quiet=True), title="remasked")
        return Trial(accuracy, watch.seconds, weight_bytes(pruned))
