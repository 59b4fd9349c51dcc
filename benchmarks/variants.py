"""One model dense, pruned, repaired, and repaired without the mask: made by the stages themselves, then questioned."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.trials import Stopwatch, Trial, Trials
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.methods import METHODS
from vlmc.toolchain.settings import PruneSettings, RepairSettings
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.repair import Repair


class Variants:
    """Makes the variants of one model, and asks each the same questions; pruned artifacts stay in `scratch`."""

    def __init__(self, model: str, samples: Sequence[Sample], scratch: Path) -> None:
        self.trials, self.scratch = Trials(SavedModel.find(model), samples), scratch

    def dense(self) -> Trial:
        """Measure the model as it is."""
        return self.trials.dense()

    def pruned(self, options: PruneSettings) -> tuple[SavedModel, Trial]:
        """Prune; no seed changes the result."""
        return self.trials.pruned(options, self.scratch / f"{options.method}-{options.target}".replace(":", "-"))

    def repaired(self, pruned: SavedModel, options: RepairSettings, seed: int) -> Trial:
        """Repair with the options' method, and merge; an adapter that is never merged is measured where it sits."""
        watch = Stopwatch()
        with TemporaryDirectory(dir=self.scratch) as folder:
            adapted, merged = Path(folder) / "adapted", Path(folder) / "merged"
            with watch.step("repair"):
                Repair(options, seed).run(pruned, adapted)
            if METHODS[options.method].merged is None:
                return self.trials.question(SavedModel("adapted", adapted), watch)
            with watch.step("merge"):
                Merge().run(SavedModel("adapted", adapted), merged)
            return self.trials.question(SavedModel("merged", merged), watch)

    def remasked(self, pruned: SavedModel, options: RepairSettings, seed: int) -> Trial:
        """Repair with LoRA, merge and prune again."""
        return self.repaired(pruned, options.model_copy(update={"method": "lora-remask"}), seed)
