"""One model dense, pruned, repaired, and repaired without the mask: made by the stages themselves, then questioned."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate import evaluate
from vlmc.toolchain.evaluate.trials import Stopwatch, Trial, Trials, weight_bytes
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.repair.adapter_files import FOLDER, attach_saved, load_adapter
from vlmc.toolchain.repair.methods import METHODS
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
            return self.trials.question(Checkpoint("merged", merged), watch)

    def remasked(self, pruned: Checkpoint, options: RepairSettings, seed: int) -> Trial:
        """Repair with LoRA, merge and prune again."""
        return self.repaired(pruned, options.model_copy(update={"method": "lora-remask"}), seed)

    def _apart(self, adapted: Checkpoint, watch: Stopwatch) -> Trial:
        artifact, model = Artifact.open(adapted.folder), adapted.load()
        attach_saved(model, load_adapter(artifact.root / FOLDER), load_masks(artifact.root, artifact.manifest))
        encoder = Encoder(adapted.load_processor(), adapted.family, model)
        accuracy = evaluate(model, encoder, self.trials.samples, Progress(quiet=True), title=adapted.name)
        measures = {step.stage: step.measures for step in artifact.manifest.history}
        return Trial(accuracy, watch.seconds, weight_bytes(adapted), measures)
