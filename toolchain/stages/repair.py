"""repair: from a pruned artifact to one with a trained adapter that brings the dense model's answers back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact import Artifact, Draft, Manifest
from vlmc.runtime.artifact.folder import is_model
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.repair.adapter_files import FOLDER, load_adapter, save_adapter
from vlmc.toolchain.repair.batches import Batches
from vlmc.toolchain.repair.carry import carry
from vlmc.toolchain.repair.checkpoints import Checkpoints
from vlmc.toolchain.repair.reports import REPORT, summary, write_report
from vlmc.toolchain.repair.sparse_lora import AdapterPlan, attach
from vlmc.toolchain.repair.training import Trainer
from vlmc.toolchain.settings import RepairSettings
from vlmc.toolchain.stages.base import Stage
from vlmc.toolchain.verify import ensure_sparsity
from vlmc.toolchain.versions import versions

_NO_RESULT = {"checkpoint_every", "max_bad"}  # options that leave the result as it is


class Repair(Stage):
    """Train SparseLoRA on the pruned layers and LoRA on the interface, with the dense model as the teacher (RESSA).

    `samples` stand in for the data set of the options; `dense` names the dense model where it is no longer where the
    artifact's origin says.
    """

    name = "repair"

    def __init__(
        self,
        options: RepairSettings,
        seed: int = 0,
        *,
        resume: bool = False,
        dense: str | None = None,
        samples: Sequence[Sample] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.options, self.seed = options, seed
        self.resume, self.dense, self.samples = resume, dense, samples
        self.progress = progress or Progress(quiet=True)

    def settings(self) -> dict[str, Any]:
        return {**self.options.model_dump(mode="json", exclude=_NO_RESULT), "seed": self.seed}

    def requires(self, source: Checkpoint) -> None:
        artifact = source.artifact
        if artifact is None:
            raise InputError(f"{source.name} is no vlmc artifact: prune the model first, with 'vlmc prune {source.name}'")
        if artifact.manifest.state != "pruned":
            raise InputError(f"{source.name} is {artifact.manifest.state}: repair works on a pruned artifact")
        artifact.verify_files()
        self._find_teacher(artifact)

    def work(self, source: Checkpoint, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        artifact = source.artifact
        assert artifact is not None
        samples = self.samples
        if samples is None:
            samples = data.load(self.options, "train", self.options.samples, seed=self.seed)
        trainer = self._trainer(source, artifact, samples)
        checkpoints = Checkpoints(_checkpoints(draft.root), self._identity(artifact, samples), resume=self.resume)
        records = trainer.train(checkpoints, self.progress)
        carry(artifact.root, draft.root, [path for path in artifact.manifest.files if is_model(path)])
        save_adapter(draft.root / FOLDER, trainer.adapters, source.digest)
        write_report(draft.root / REPORT, records)
        trained = sum(parameter.numel() for parameter in trainer.parameters)
        measures = {"parameters": trained, "peak_lr": trainer.peak, **summary(records)}
        return artifact.manifest.model_copy(update={"state": "adapted"}), measures

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)
        load_adapter(result.root / FOLDER)
        Checkpoints(_checkpoints(result.root), {}).remove()  # the last thing before the result is moved to its place

    def _trainer(self, source: Checkpoint, artifact: Artifact, samples: Sequence[Sample]) -> Trainer:
        model, masks = source.load(), load_masks(artifact.root, artifact.manifest)
        rank, alpha = self.options.rank, self.options.alpha
        plan = {name: AdapterPlan(rank, alpha, mask_OI) for name, mask_OI in masks.items()}
        plan |= {name: AdapterPlan(rank, alpha) for name in source.family.adaptable(model)}
        encoder = Encoder(source.load_processor(), source.family, model)
        batches = Batches(samples, encoder, self.options.batch, self.seed)
        teacher = self._find_teacher(artifact).load()
        return Trainer(attach(model, plan, self.seed), teacher, batches, self.options)

    def _find_teacher(self, artifact: Artifact) -> Checkpoint:
        origin = artifact.manifest.origin
        teacher = Checkpoint.find(self.dense or origin.model)
        if teacher.digest != origin.digest:
            raise InputError(f"{teacher.name} is not the model that {artifact.root} was pruned from: name that with --dense")
        return teacher

    def _identity(self, artifact: Artifact, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return all that decides the result."""
        made_from = {"source": artifact.digest, "samples": fingerprint(samples), "versions": versions()}
        return {**self.settings(), **made_from}


def _checkpoints(draft: Path) -> Path:
    return draft.with_name(draft.name.removesuffix(".partial") + ".checkpoints")
