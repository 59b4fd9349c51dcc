"""repair: from a pruned artifact to one with a trained adapter that brings the dense model's answers back."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmc.runtime.artifact import Artifact, Draft, Manifest, Part
from vlmc.runtime.artifact.folder import model_files
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.naming import named
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.accuracy import evaluate
from vlmc.toolchain.evaluate.batching import MAX_NEW_TOKENS
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.machine.versions import versions
from vlmc.toolchain.models.masks import load_packed
from vlmc.toolchain.models.origin import find_dense
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.models.saving import carry
from vlmc.toolchain.repair.adapters.attaching import Adapters, attach
from vlmc.toolchain.repair.adapters.files import FOLDER, load_adapter, save_adapter
from vlmc.toolchain.repair.distillation.teachers import Cached, Copy, Shared, Teacher, pruned_away
from vlmc.toolchain.repair.distillation.views import View
from vlmc.toolchain.repair.feeding.batches import Batches, split
from vlmc.toolchain.repair.feeding.material import Material
from vlmc.toolchain.repair.kernels.triton_calls import MOST_RANKS, supports
from vlmc.toolchain.repair.methods import METHODS, Method
from vlmc.toolchain.repair.training.board import writer_class
from vlmc.toolchain.repair.training.checkpoints import Checkpoints
from vlmc.toolchain.repair.training.loading import Loading, Sharded, Whole, held_bytes, shards
from vlmc.toolchain.repair.training.recompute import recompute
from vlmc.toolchain.repair.training.reports import summary, write_reports
from vlmc.toolchain.repair.training.trainer import Trainer
from vlmc.toolchain.reporting.card import PRUNED
from vlmc.toolchain.reporting.verification import ensure_sparsity
from vlmc.toolchain.settings import RepairSettings
from vlmc.toolchain.stages.base import ArtifactStage
from vlmc.toolchain.stages.run_folder import deciding

_NO_RESULT = {
    *(
        "checkpoint_every",
        "checkpoint_minutes",
        "gradient_checkpointing",
        "max_bad",
        "sample_cache",
        "tensorboard",
        "workers",
    ),
}
"""Options that leave the result as it is."""


class Repair(ArtifactStage):
    """Train adapters on the pruned layers and the interface, with the dense model as the teacher.

    `samples` and `validation` stand in for the data sets of the options; `dense` names the dense model where it is
    not found by itself, `download` lets the hub be asked for it. Of several processes the main one runs the stage, the
    others `assist`.
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
        self.material = Material(options, seed, self.progress, samples, validation)

    def settings(self) -> dict[str, Any]:
        return {**self.options.model_dump(mode="json", exclude=_NO_RESULT), "seed": self.seed}

    @property
    def method(self) -> Method:
        """What is trained, and what becomes of it."""
        return METHODS[self.options.method]

    def requires(self, source: SavedModel) -> None:
        artifact = _opened(source)
        artifact.verify_files()
        if self.method.distilled:
            self._dense(source)

    def _ensure_kernel(self) -> None:
        probe = torch.empty(0, device=self.group.device)
        if self.options.kernel == "triton" and not supports(probe, probe, self.options.rank):
            raise EnvironmentLacks(
                "--kernel triton needs an NVIDIA GPU of compute capability 8.0 or later, the package triton (pip install "
                f"triton) and at most {MOST_RANKS} ranks; --kernel tiled runs everywhere"
            )

    def _ensure_shards(self) -> None:
        if not shards(self.group):
            return
        if self.options.method == "masked-full":
            raise InputError(
                "--method masked-full trains as much as there are weights, which every process would hold whole: "
                "choose another method, or leave --use_fsdp out"
            )
        if self.method.distilled and self.options.teacher == "cached":
            raise InputError(
                "--teacher cached asks the dense model process by process, which weights in shards cannot answer: "
                "choose shared or copy, or leave --use_fsdp out"
            )

    def work(self, source: SavedModel, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        artifact, folder = _opened(source), _checkpoints(draft.root)
        before = self._ask_pruned(source)
        trainer = self._trainer(source, artifact, folder)
        checkpoints = Checkpoints(folder, self._identity(artifact), resume=self.resume)
        trainer.train(checkpoints, self.progress)
        carry(artifact.root, draft.root, model_files(artifact.manifest.files))
        base = artifact.manifest.origin.model
        save_adapter(draft.root / FOLDER, trainer.adapters, self.method, source.digest, base)
        write_reports(draft.root, trainer.records, trainer.watch.losses)
        return artifact.manifest, before | self._measures(trainer)

    def assist(self, source: SavedModel, destination: Path) -> None:
        """Train in step with the main process, which writes `destination`."""
        folder = _checkpoints(destination)
        self._trainer(source, _opened(source), folder).train(None, Progress(quiet=True))
        shutil.rmtree(self._cache(folder), ignore_errors=True)

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)
        load_adapter(result.root / FOLDER)

    def leftovers(self, result: Artifact) -> tuple[Path, ...]:
        return (_checkpoints(result.root),)

    def inputs(self) -> dict[str, str]:
        self._ensure_kernel()
        self._ensure_shards()
        if self.options.tensorboard is not None:
            writer_class()
        return self.material.digests

    def _trainer(self, source: SavedModel, artifact: Artifact, folder: Path) -> Trainer:
        loading, masks = self._loading(source), load_packed(artifact.root, artifact.manifest)
        rank, alpha, kernel = self.options.rank, self.options.alpha, self.options.kernel
        plan = self.method.plan(masks, source.family.adaptable(loading.model), rank, alpha, kernel)
        adapters = attach(loading.model, plan, self.seed)
        model = loading.settle(adapters.parameters().values())
        if self.options.gradient_checkpointing:
            recompute(model, [name for tower in source.family.towers for name, _ in source.family.blocks(model, tower)])
        encoder = Encoder(source.load_processor(), source.family, model)
        train, check = self.material.batches(encoder)
        towers = [tower for tower in source.family.towers if tower.part is Part.LANGUAGE]
        blocks = [name for name, _ in source.family.blocks(model, towers[-1])] if self.options.hidden else []
        view = View(blocks, self.options.precision)
        teacher = self._teacher(source, adapters, masks, train, view, folder)
        return Trainer(adapters, teacher, train, self.options, group=self.group, view=view, validation=check)

    def _loading(self, source: SavedModel) -> Loading:
        kind = Sharded if shards(self.group) else Whole
        return kind(source, self.options.precision, self.group)

    def _dense(self, source: SavedModel) -> SavedModel:
        return find_dense(_opened(source), self.dense, download=self.download, trust=source.trust)

    def _teacher(
        self,
        source: SavedModel,
        adapters: Adapters,
        masks: dict[str, Tensor],
        batches: Batches,
        view: View,
        folder: Path,
    ) -> Teacher | None:
        """Return the teacher that the options name, or the cheapest that is true to the dense model."""
        if not self.method.distilled:
            return None
        artifact, dense, mode = _opened(source), self._dense(source), self.options.teacher

        def copy() -> Copy:
            return Copy(self._loading(dense).settle(), view)

        if mode == "cached":
            steps = (batches.indices(step) for step in range(self.options.steps))
            mine = (place for indices in steps for place in split(indices, self.group.size)[self.group.rank])
            look = partial(view.of, adapters.model)
            where = self._cache(folder)
            return Cached(where, self.options, self.seed, batches=batches, places=mine, dense=copy, look=look)
        if mode == "copy":
            return copy()
        pruned = pruned_away(artifact.root, dense.folder, artifact.manifest.layers, masks, adapters)
        if pruned is None and mode == "shared":
            raise InputError(f"--teacher shared: pruning changed weights that {artifact.root} keeps: choose copy or cached")
        return copy() if pruned is None else Shared(adapters, pruned, view)

    def _cache(self, folder: Path) -> Path:
        return folder / f"teacher-{self.group.rank}-of-{self.group.size}"

    def _ask_pruned(self, source: SavedModel) -> dict[str, Any]:
        """Return the pruned model's accuracy on the first validation questions with short answers, as a measure.

        Where there are none, and among several processes, nothing is measured.
        """
        found = () if self.group.size > 1 else self.material.questions
        count = min(self.options.pruned_questions, len(found))
        if not count:
            return {}
        model = source.load().to(self.group.device)
        encoder = Encoder(source.load_processor(), source.family, model)
        some = [one for one in (found[place] for place in range(count)) if encoder.is_short(one, MAX_NEW_TOKENS)]
        if not some:
            return {}
        accuracy = evaluate(model, encoder, some, self.progress, title="pruned", batch=self.options.batch)
        where = {"data": named(self.options.validation or self.options.data), "split": "validation"}
        return {PRUNED: {**where, "count": accuracy.count, "overall": round(accuracy.overall, 6)}}

    def _identity(self, artifact: Artifact) -> dict[str, Any]:
        """Return all that decides the result."""
        made_from = {"source": artifact.digest, "data": self.material.digests, "versions": versions()}
        return {**deciding(self.settings()), **made_from}

    def _measures(self, trainer: Trainer) -> dict[str, Any]:
        trained = sum(parameter.numel() for parameter in trainer.parameters)
        measures = {"parameters": trained, "peak_lr": trainer.peak, **summary(trainer.records, trainer.watch.losses)}
        measures |= trainer.teacher.measures() if trainer.teacher else {}
        if held := len(self.material.parts.validation):
            measures |= {"trained_on": len(self.material.parts.train), "held_out": held}
        if shards(self.group):
            measures |= {"shards": self.group.size, "weight_bytes_each": held_bytes(trainer.adapters.model)}
        if self.method.merged is None:
            measures["kept_apart"] = True
        return measures


def _opened(source: SavedModel) -> Artifact:
    assert source.artifact is not None
    return source.artifact


def _checkpoints(draft: Path) -> Path:
    return draft.with_name(draft.name.removesuffix(".partial") + ".checkpoints")
