"""repair: from a pruned artifact to one with a trained adapter that brings the dense model's answers back."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact import Artifact, Draft, Manifest
from vlmc.runtime.artifact.folder import model_files
from vlmc.runtime.artifact.owned import beside
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.naming import named
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.accuracy import evaluate
from vlmc.toolchain.evaluate.batching import MAX_NEW_TOKENS
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.machine.versions import versions
from vlmc.toolchain.models.origin import find_dense
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.models.saving import carry
from vlmc.toolchain.repair.adapters import FOLDER, load_adapter, save_adapter
from vlmc.toolchain.repair.distillation import cache_folder
from vlmc.toolchain.repair.feeding import TrainingData
from vlmc.toolchain.repair.kernels import check_kernel
from vlmc.toolchain.repair.loading import check_shards, shard_measures
from vlmc.toolchain.repair.methods import METHODS, Method
from vlmc.toolchain.repair.training import Assembly, Checkpoints, Trainer, measures, write_reports, writer_class
from vlmc.toolchain.reporting.card import PRUNED
from vlmc.toolchain.reporting.verification import ensure_sparsity
from vlmc.toolchain.settings import RepairSettings
from vlmc.toolchain.stages.base import ArtifactStage
from vlmc.toolchain.stages.run_folder import RunFolder, deciding

NO_RESULT = frozenset(
    (
        "checkpoint_every",
        "checkpoint_minutes",
        "gradient_checkpointing",
        "max_bad",
        "sample_cache",
        "tensorboard",
        "workers",
    )
)
"""Options that do not change the result."""


class Repair(ArtifactStage):
    """Train adapters on the pruned layers and the interface, with the dense model as the teacher.

    `samples` and `validation` replace the data sets of the options; `dense` names the dense model where it is not found by
    itself, and `download` lets the hub be asked for it. Of several processes the main one runs the stage, the others
    `assist`.
    """

    name, accepts, produces = "repair", ("pruned",), "adapted"

    def __init__(
        self,
        options: RepairSettings,
        seed: int = 0,
        *,
        resume: bool = False,
        dense: str | None = None,
        download: bool = False,
        samples: Sequence[Sample] | None = None,
        validation: Sequence[Sample] | None = None,
        progress: Progress | None = None,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(group)
        self.options, self.seed = options, seed
        self.resume, self.dense, self.download = resume, dense, download
        self.progress = progress or Progress(quiet=True)
        self.data = TrainingData(options, seed, self.progress, samples, validation)

    def settings(self) -> dict[str, Any]:
        return {**self.options.model_dump(mode="json", exclude=set(NO_RESULT)), "seed": self.seed}

    @property
    def method(self) -> Method:
        """What is trained, and what becomes of it."""
        return METHODS[self.options.method]

    def requires(self, source: SavedModel) -> None:
        artifact = _opened(source)
        artifact.verify_files()
        self._teacher(source)

    def inputs(self) -> dict[str, str]:
        check_kernel(self.options.kernel, self.options.rank, self.group.device)
        check_shards(self.options, self.group, distilled=self.method.distilled)
        if self.options.tensorboard is not None:
            writer_class()
        return self.data.digests

    def work(self, source: SavedModel, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        artifact, folder = _opened(source), _checkpoints(draft.destination)
        RunFolder(folder, self._identity(artifact), resume=self.resume).open()
        before = self._ask_pruned(source)
        trainer = self._trainer(source, folder)
        trainer.train(Checkpoints(folder), self.progress)
        carry(artifact.root, draft.root, model_files(artifact.manifest.files))
        base = artifact.manifest.origin.model
        save_adapter(draft.root / FOLDER, trainer.adapters, self.method, source.digest, base)
        write_reports(draft.root, trainer.records, trainer.stopping.losses)
        told = self.data.measures() | shard_measures(trainer.adapters.model, self.group)
        told |= {"kept_apart": True} if self.method.merged is None else {}
        return artifact.manifest, {**before, **measures(trainer), **told}

    def assist(self, source: SavedModel, destination: Path) -> None:
        """Train in step with the main process, which writes `destination`."""
        folder = _checkpoints(destination)
        self._trainer(source, folder).train(None, Progress(quiet=True))
        shutil.rmtree(cache_folder(folder, self.group), ignore_errors=True)

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)
        load_adapter(result.root / FOLDER)

    def leftovers(self, destination: Path) -> tuple[Path, ...]:
        return (_checkpoints(destination),)

    def _trainer(self, source: SavedModel, folder: Path) -> Trainer:
        artifact = _opened(source)
        assembly = Assembly(source, artifact, self._teacher(source), self.options, self.seed, self.group)
        return assembly.trainer(self.data, folder)

    def _teacher(self, source: SavedModel) -> SavedModel | None:
        """Return the dense model, None for a method that is not distilled."""
        if not self.method.distilled:
            return None
        return find_dense(_opened(source), self.dense, download=self.download, trust=source.trust)

    def _ask_pruned(self, source: SavedModel) -> dict[str, Any]:
        """Return the pruned model's accuracy on the first validation questions with short answers, as a measure.

        Nothing is measured where there are none, or in several processes.
        """
        found = () if self.group.size > 1 else self.data.questions
        count = min(self.options.pruned_questions, len(found))
        if not count:
            return {}
        model = source.load().to(self.group.device)
        encoder = Encoder(source.load_processor(), source.family, model)
        asked = [one for one in (found[place] for place in range(count)) if not one.is_plain]
        some = [one for one in asked if encoder.is_short(one, MAX_NEW_TOKENS)]
        if not some:
            return {}
        accuracy = evaluate(model, encoder, some, self.progress, title="pruned", batch=self.options.batch)
        where = {"data": named(self.options.validation or self.options.data), "split": "validation"}
        by_kind = {kind: round(share, 6) for kind, share in accuracy.by_kind.items()}
        return {PRUNED: {**where, "count": accuracy.count, "overall": round(accuracy.overall, 6), "by_kind": by_kind}}

    def _identity(self, artifact: Artifact) -> dict[str, Any]:
        """Return all that decides the result."""
        made_from = {"source": artifact.digest, "data": self.data.digests, "versions": versions()}
        return {**deciding(self.settings()), **made_from}


def _opened(source: SavedModel) -> Artifact:
    assert source.artifact is not None
    return source.artifact


def _checkpoints(destination: Path) -> Path:
    return beside(destination, destination.name + ".checkpoints")
