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
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.masks import load_packed
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.repair.adapter_files import FOLDER, load_adapter, save_adapter
from vlmc.toolchain.repair.adapters import Adapters, attach
from vlmc.toolchain.repair.batches import Batches, split
from vlmc.toolchain.repair.carry import carry
from vlmc.toolchain.repair.checkpoints import Checkpoints
from vlmc.toolchain.repair.holding_out import Parts, hold_out
from vlmc.toolchain.repair.loading import Loading, Sharded, Whole, held_bytes, shards
from vlmc.toolchain.repair.masked_linear_triton import MOST_RANKS, supports
from vlmc.toolchain.repair.methods import METHODS, Method
from vlmc.toolchain.repair.recompute import recompute
from vlmc.toolchain.repair.reports import summary, write_reports
from vlmc.toolchain.repair.teachers import Cached, Copy, Shared, Teacher, pruned_away
from vlmc.toolchain.repair.training import VALIDATE, Trainer
from vlmc.toolchain.repair.views import View
from vlmc.toolchain.settings import RepairSettings
from vlmc.toolchain.stages.base import Stage
from vlmc.toolchain.team import Team
from vlmc.toolchain.verify import ensure_sparsity
from vlmc.toolchain.versions import versions

_NO_RESULT = {
    *("checkpoint_every", "checkpoint_minutes", "gradient_checkpointing", "max_bad", "sample_cache", "tensorboard", "workers"),
}
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
        self._ensure_shards()
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

    def _ensure_shards(self) -> None:
        if not shards(self.team):
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

    @cached_property
    def _parts(self) -> Parts:
        """The samples to train on, and those of a user's own data that are held out where no others are named."""
        if self.options.data == "demo" or self.options.validation or self.validation is not None:
            return Parts(self._samples, ())
        parts = hold_out(self._samples, self.options.hold_out, self.seed)
        self.progress.notice(parts.notice)
        if parts.validation:
            self.progress.notice(
                f"{len(parts.validation)} of {len(self._samples)} samples are held out to validate on (--hold-out)"
            )
        return parts

    def _trainer(self, source: Checkpoint, artifact: Artifact, folder: Path) -> Trainer:
        loading, masks = self._loading(source), load_packed(artifact.root, artifact.manifest)
        rank, alpha, kernel = self.options.rank, self.options.alpha, self.options.kernel
        plan = self.method.plan(masks, source.family.adaptable(loading.model), rank, alpha, kernel)
        adapters = attach(loading.model, plan, self.seed)
        model = loading.settle(adapters.parameters().values())
        if self.options.gradient_checkpointing:
            recompute(model, [name for tower in source.family.towers for name, _ in source.family.blocks(model, tower)])
        encoder = Encoder(source.load_processor(), source.family, model)
        validation = self._validation()
        train, check = self._batches(encoder, validation)
        towers = [tower for tower in source.family.towers if tower.part is Part.LANGUAGE]
        blocks = [name for name, _ in source.family.blocks(model, towers[-1])] if self.options.hidden else []
        view = View(blocks, self.options.precision)
        teacher = self._teacher(artifact, adapters, masks, train, view, folder)
        return Trainer(adapters, teacher, train, self.options, team=self.team, view=view, validation=check)

    def _loading(self, source: Checkpoint) -> Loading:
        kind = Sharded if shards(self.team) else Whole
        return kind(source, self.options.precision, self.team)

    def _batches(self, encoder: Encoder, validation: Sequence[Sample]) -> tuple[Batches, Batches | None]:
        """Return the batches to train on and to validate on; what is asked for once is not kept, the others share the room."""
        options, train = self.options, self._parts.train
        again = options.steps * options.batch > len(train)
        every = options.validate_every or VALIDATE
        check_again = bool(validation) and options.steps > every
        room = options.sample_cache * 1_000_000 // max(1, again + check_again)
        made = Batches(train, encoder, options.batch, self.seed, room=again * room)
        return made, Batches(validation, encoder, options.batch, self.seed, room=check_again * room) if validation else None

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
            return Copy(self._loading(dense).settle(), view)

        if mode == "cached":
            steps = (batches.indices(step) for step in range(self.options.steps))
            mine = (place for indices in steps for place in split(indices, self.team.size)[self.team.rank])
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
        return folder / f"teacher-{self.team.rank}-of-{self.team.size}"

    def _validation(self) -> Sequence[Sample]:
        """Return what to validate on, if anything: what is named, what is held out, or, where asked for, the demo's split."""
        options, asked = self.options, self.options.patience is not None or self.options.validate_every is not None
        if self._parts.validation:
            return self._parts.validation
        found = self.validation
        if found is None:
            name = options.validation or ("demo" if options.data == "demo" and asked else None)
            if name is None and asked:
                raise InputError(
                    f"there is nothing to validate {options.data} on: name a data set with --validation, or a number of "
                    "samples with --hold-out"
                )
            found = () if name is None else data.load(name, "validation")
        return [found[place] for place in range(min(options.validation_count, len(found)))]

    def _find_teacher(self, artifact: Artifact) -> Checkpoint:
        origin = artifact.manifest.origin
        teacher = Checkpoint.find(self.dense or origin.model)
        if teacher.digest != origin.digest:
            raise InputError(f"{teacher.name} is not the model that {artifact.root} was pruned from: name that with --dense")
        return teacher

    def _identity(self, artifact: Artifact) -> dict[str, Any]:
        """Return all that decides the result."""
        made_from = {"source": artifact.digest, "samples": fingerprint(self._samples), "versions": versions()}
        return {**self.settings(), **made_from}

    def _measures(self, trainer: Trainer) -> dict[str, Any]:
        trained = sum(parameter.numel() for parameter in trainer.parameters)
        measures = {"parameters": trained, "peak_lr": trainer.peak, **summary(trainer.records, trainer.watch.losses)}
        measures |= trainer.teacher.measures() if trainer.teacher else {}
        if held := len(self._parts.validation):
            measures |= {"trained_on": len(self._parts.train), "held_out": held}
        if shards(self.team):
            measures |= {"shards": self.team.size, "weight_bytes_each": held_bytes(trainer.adapters.model)}
        if self.method.merged is None:
            measures["kept_apart"] = True
        return measures


def _opened(source: Checkpoint) -> Artifact:
    assert source.artifact is not None
    return source.artifact


def _checkpoints(draft: Path) -> Path:
    return draft.with_name(draft.name.removesuffix(".partial") + ".checkpoints")
