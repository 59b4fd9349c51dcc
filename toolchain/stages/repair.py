"""repair: from a pruned artifact to one with a trained adapter that brings the dense model's answers back."""

import shutil
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmc.runtime.artifact import Artifact, Draft, Manifest, Part
from vlmc.runtime.artifact.folder import is_model
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.drawn import DRAWN
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.repair.adapter_files import FOLDER, load_adapter, save_adapter
from vlmc.toolchain.repair.adapters import Adapters, attach
from vlmc.toolchain.repair.batches import Batches, split
from vlmc.toolchain.repair.carry import carry
from vlmc.toolchain.repair.checkpoints import Checkpoints
from vlmc.toolchain.repair.masked_linear_triton import MOST_RANKS, supports
from vlmc.toolchain.repair.methods import METHODS, Method
from vlmc.toolchain.repair.precision import narrow
from vlmc.toolchain.repair.recompute import recompute
from vlmc.toolchain.repair.reports import summary, write_reports
from vlmc.toolchain.repair.teachers import Cached, Copy, Shared, Teacher, pruned_away
from vlmc.toolchain.repair.training import Trainer
from vlmc.toolchain.repair.views import View
from vlmc.toolchain.settings import RepairSettings
from vlmc.toolchain.stages.base import Stage
from vlmc.toolchain.team import Team
from vlmc.toolchain.verify import ensure_sparsity
from vlmc.toolchain.versions import versions

_NO_RESULT = {"checkpoint_every", "checkpoint_minutes", "gradient_checkpointing", "max_bad", "tensorboard", "workers"}
"""Options that leave the result as it is."""


class Repair(Stage):
    """Train adapters on the pruned layers and the interface, with the dense model as the teacher.

    `samples` and `validation` stand in for the data sets of the options; `dense` names the dense model where it is no
    longer where the artifact's origin says. Of several processes the main one runs the stage, the others `assist`.
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
        validation: Sequence[Sample] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.options, self.seed = options, seed
        self.resume, self.dense, self.samples, self.validation = resume, dense, samples, validation
        self.progress = progress or Progress(quiet=True)
        self.team = Team()

    def settings(self) -> dict[str, Any]:
        return {**self.options.model_dump(mode="json", exclude=_NO_RESULT), "seed": self.seed}

    @property
    def method(self) -> Method:
        """What is trained, and what becomes of it."""
        return METHODS[self.options.method]

    def requires(self, source: Checkpoint) -> None:
        artifact = source.artifact
        if artifact is None:
            raise InputError(f"{source.name} is no vlmc artifact: prune the model first, with 'vlmc prune {source.name}'")
        if artifact.manifest.state != "pruned":
            raise InputError(f"{source.name} is {artifact.manifest.state}: repair works on a pruned artifact")
        self._ensure_kernel()
        artifact.verify_files()
        if self.method.distilled:
            self._find_teacher(artifact)

    def _ensure_kernel(self) -> None:
        probe = torch.empty(0, device=self.team.device)
        if self.options.kernel == "triton" and not supports(probe, probe, self.options.rank):
            raise EnvironmentLacks(
                "--kernel triton needs an NVIDIA GPU of compute capability 8.0 or later, the package triton (pip install "
                f"triton) and at most {MOST_RANKS} ranks; --kernel tiled runs everywhere"
            )

    def work(self, source: Checkpoint, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        artifact, folder = _opened(source), _checkpoints(draft.root)
        trainer = self._trainer(source, artifact, folder)
        checkpoints = Checkpoints(folder, self._identity(artifact), resume=self.resume)
        trainer.train(checkpoints, self.progress)
        carry(artifact.root, draft.root, [path for path in artifact.manifest.files if is_model(path)])
        save_adapter(draft.root / FOLDER, trainer.adapters, self.method, source.digest)
        write_reports(draft.root, trainer.records, trainer.watch.losses)
        return artifact.manifest.model_copy(update={"state": "adapted"}), self._measures(trainer)

    def assist(self, source: Checkpoint, destination: Path) -> None:
        """Train in step with the main process, which writes `destination`."""
        folder = _checkpoints(destination)
        self._trainer(source, _opened(source), folder).train(None, Progress(quiet=True))
        shutil.rmtree(self._cache(folder), ignore_errors=True)

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)
        load_adapter(result.root / FOLDER)
        Checkpoints(_checkpoints(result.root), {}).remove()  # the last thing before the result is moved to its place

    @cached_property
    def _samples(self) -> Sequence[Sample]:
        if self.samples is not None:
            return self.samples
        return data.load(self.options, "train", self.options.samples, seed=self.seed)

    def _trainer(self, source: Checkpoint, artifact: Artifact, folder: Path) -> Trainer:
        model, masks = source.load(), load_masks(artifact.root, artifact.manifest)
        rank, alpha, kernel = self.options.rank, self.options.alpha, self.options.kernel
        plan = self.method.plan(masks, source.family.adaptable(model), rank, alpha, kernel)
        adapters = attach(narrow(model, source.dtype, self.options.precision), plan, self.seed)
        model.to(self.team.device)
        if self.options.gradient_checkpointing:
            recompute(model, [name for tower in source.family.towers for name, _ in source.family.blocks(model, tower)])
        encoder = Encoder(source.load_processor(), source.family, model)
        batches = Batches(self._samples, encoder, self.options.batch, self.seed)
        towers = [tower for tower in source.family.towers if tower.part is Part.LANGUAGE]
        blocks = [name for name, _ in source.family.blocks(model, towers[-1])] if self.options.hidden else []
        view = View(blocks, self.options.precision)
        teacher = self._teacher(artifact, adapters, masks, batches, view, folder)
        validation = self._validation(encoder)
        return Trainer(adapters, teacher, batches, self.options, team=self.team, view=view, validation=validation)

    def _teacher(
        self,
        artifact: Artifact,
        adapters: Adapters,
        masks: dict[str, Tensor],
        batches: Batches,
        view: View,
        folder: Path,
    ) -> Teacher | None:
        """Return the teacher that the options name, or the cheapest that is true to the dense model."""
        if not self.method.distilled:
            return None
        dense, mode = self._find_teacher(artifact), self.options.teacher

        def copy() -> Copy:
            return Copy(narrow(dense.load(), dense.dtype, self.options.precision).to(self.team.device), view)

        if mode == "cached":
            steps = (batches.indices(step) for step in range(self.options.steps))
            mine = (place for indices in steps for place in split(indices, self.team.size)[self.team.rank])
            look = partial(view.of, adapters.model)
            where = self._cache(folder)
            return Cached(where, self.options, self.seed, batches=batches, places=mine, dense=copy, look=look)
        if mode == "copy":
            return copy()
        pruned = pruned_away(artifact.root, dense.folder, artifact.manifest.layers, masks)
        if pruned is None and mode == "shared":
            raise InputError(f"--teacher shared: pruning changed weights that {artifact.root} keeps: choose copy or cached")
        return copy() if pruned is None else Shared(adapters, pruned, view)

    def _cache(self, folder: Path) -> Path:
        return folder / f"teacher-{self.team.rank}"

    def _validation(self, encoder: Encoder) -> Batches | None:
        """Return what early stopping goes by, where there is any; its order is of no account."""
        options = self.options
        if options.patience is None and options.validate_every is None:
            return None
        found = self.validation
        if found is None:
            name = options.validation or (options.data if options.data in DRAWN else None)
            if name is None:
                raise InputError(f"there is nothing to validate {options.data} on: name a data set with --validation")
            found = data.load(name, "validation")
        some = [found[place] for place in range(min(options.validation_count, len(found)))]
        return Batches(some, encoder, options.batch, self.seed)

    def _find_teacher(self, artifact: Artifact) -> Checkpoint:
        origin = artifact.manifest.origin
        teacher = Checkpoint.find(self.dense or origin.model)
        if teacher.digest != origin.digest:
            raise InputError(f"{teacher.name} is not the model that {artifact.root} was pruned from: name that with --dense")
        return teacher

    def _identity(self, artifact: Artifact) -> dict[str, Any]:
        """Return all that decides the result."""
        made_from = {"source": artifact.digest, "samples": fingerprint(self._samples), "versions": versions()}
        return {**self.settings(), **made_from, "processes": self.team.size}

    def _measures(self, trainer: Trainer) -> dict[str, Any]:
        trained = sum(parameter.numel() for parameter in trainer.parameters)
        measures = {"parameters": trained, "peak_lr": trainer.peak, **summary(trainer.records, trainer.watch.losses)}
        measures |= trainer.teacher.measures() if trainer.teacher else {}
        if self.method.merged is None:
            measures["kept_apart"] = True
        return measures


def _opened(source: Checkpoint) -> Artifact:
    assert source.artifact is not None
    return source.artifact


def _checkpoints(draft: Path) -> Path:
    return draft.with_name(draft.name.removesuffix(".partial") + ".checkpoints")
