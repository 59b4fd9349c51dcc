"""Pruning one block after the other, each written to the journal as soon as it is done.

Shapes: O out features, I in features.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.calibration.tokens import Tokens
from vlmc.toolchain.calibration.walk import Run, Sweep, Visitor
from vlmc.toolchain.families.base import linears
from vlmc.toolchain.machine.memory import keep_large_apart, return_memory
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.masks import masked
from vlmc.toolchain.models.streaming.activations import Activations
from vlmc.toolchain.prune.journal import Journal, PrunedLayer
from vlmc.toolchain.prune.methods.base import Pruner
from vlmc.toolchain.prune.refinements.reconstruct import Reconstruction, Task, reconstruct


@dataclass(frozen=True)
class Plan:
    """How a model is pruned: by what, and which layer to which pattern; layers that are not named stay dense.

    Each block is trained for so many epochs of the calibration samples once it is pruned, in an order that the seed draws.
    """

    pruner: Pruner
    patterns: Mapping[str, SparsityPattern]
    epochs: int = 0
    seed: int = 0


def prune_blocks(plan: Plan, sweep: Sweep, journal: Journal, tokens: Tokens | None, progress: Progress) -> list[str]:
    """Prune tower after tower, but for blocks that the journal has already; return the names of all those blocks.

    `tokens` weighs the tokens of the language model's input; None weighs all alike.
    """
    keep_large_apart()
    family, model = sweep.family, sweep.model
    towers = {tower: [name for name, _ in family.blocks(model.module, tower)] for tower in family.towers}
    towers = {tower: names for tower, names in towers.items() if _has_work(plan, names)}
    with progress.task("prune", sum(len(names) for names in towers.values())) as bar:
        visitor = _PruneBlocks(plan, sweep, journal, bar.advance)
        for tower, names in towers.items():
            for name in filter(visitor.finished, names):
                visitor.take_over(name)
            sweep.tower(tower, visitor, tokens if tower.part is Part.LANGUAGE and tower.mixed else None)
    return [name for names in towers.values() for name in names]


def _has_work(plan: Plan, blocks: Sequence[str]) -> bool:
    return any(layer.startswith(f"{block}.") for layer in plan.patterns for block in blocks)


class _PruneBlocks(Visitor):
    """Prunes the layers of every block that it visits; `done` is called after each block."""

    def __init__(self, plan: Plan, sweep: Sweep, journal: Journal, done: Callable[[], None]) -> None:
        self.plan, self.sweep, self.journal, self.done = plan, sweep, journal, done
        self.model, self.group, self.need = sweep.model, sweep.group, plan.pruner.need
        self.looks = self.need is not Need.NOTHING or plan.epochs > 0
        self._tensors: set[str] = set()  # a tensor that several layers share is pruned with the first of them

    def finished(self, name: str) -> bool:
        return self.journal.path(name).is_file()

    def take_over(self, name: str) -> None:
        """Read a finished block's weights from the journal from now on."""
        for layer in self.journal.layers(name):
            self._tensors.add(layer.tensor)
            self.model.replace(f"{layer.name}.weight", self.journal.path(name), layer.tensor)
        self.done()

    def visit(
        self, name: str, block: nn.Module, statistics: dict[str, Statistics], samples: Sequence[int], run: Run
    ) -> None:
        jobs = self._jobs(name, block, statistics)
        dense = self._outputs(samples, run) if self.plan.epochs else None
        self._prune(self.group.share(jobs))
        for place, job in enumerate(jobs):
            job.send(self.group, place % self.group.size)
        self._place(name, block, jobs)
        trained = None
        if dense is not None:
            trained = self._reconstruct(name, block, jobs, Task(len(samples), lambda one: run(one).after, dense.get))
            self._place(name, block, jobs)
        if self.group.is_main:
            masks = {job.tensor: job.mask_OI for job in jobs}
            weights = {job.tensor: job.weight_OI for job in jobs}
            self.journal.write(name, [job.note() for job in jobs], weights, masks, trained)
        self.group.wait()
        self.take_over(name)
        jobs.clear()
        return_memory()

    def _prune(self, jobs: Sequence["_Job"]) -> None:
        """Prune layers; a Hessian goes with the last of those that share it."""
        users = Counter(id(job.statistics) for job in jobs)
        for job in jobs:
            job.prune(self.plan.pruner)
            users[id(job.statistics)] -= 1
            if not users[id(job.statistics)]:
                job.statistics.release()
                return_memory()

    def _place(self, name: str, block: nn.Module, jobs: Sequence["_Job"]) -> None:
        """Let the block, and the layers that are tied to its own, compute with the pruned weights."""
        weights = {job.tensor: job.weight_OI for job in jobs}
        for inner, layer in linears(block):
            weight_OI = weights.get(self.model.stored(f"{name}.{inner}.weight"))
            if weight_OI is None:
                continue
            if weight_OI.dtype is layer.weight.dtype:
                layer.weight.data = weight_OI  # one copy is enough
            else:
                layer.weight.data.copy_(weight_OI)

    def _outputs(self, samples: Sequence[int], run: Run) -> Activations:
        """Return what the block, still dense, gives for every sample."""
        outputs = self.sweep.activations("dense")
        for sample in samples:
            outputs.put(sample, run(sample).after)
        return outputs

    def _reconstruct(self, name: str, block: nn.Module, jobs: Sequence["_Job"], task: Task) -> Reconstruction:
        """Train the kept weights towards what the dense block gave for the same inputs."""
        masks = {job.name.removeprefix(f"{name}."): job.mask_OI for job in jobs}
        found = reconstruct(block, masks, task, self.plan.epochs, self.plan.seed)
        for job in jobs:
            job.take(job.layer.weight.detach())
        return found

    def _jobs(self, name: str, block: nn.Module, statistics: Mapping[str, Statistics]) -> list["_Job"]:
        jobs: dict[str, _Job] = {}
        for inner, layer in linears(block):
            full = f"{name}.{inner}"
            if full not in self.plan.patterns:
                continue
            tensor = self.model.stored(f"{full}.weight")
            if tensor in self._tensors or tensor in jobs:
                continue
            if self.need is not Need.NOTHING and inner not in statistics:
                raise InputError(f"{full} never ran on the calibration data: leave it dense with --layers '{full}=none'")
            seen = statistics.get(inner) or Statistics(layer.in_features, Need.NOTHING, layer.weight.device)
            weight_OI = partial(self._dense, f"{full}.weight", layer)
            stored = self.model.dtype(f"{full}.weight")
            jobs[tensor] = _Job(full, tensor, layer, weight_OI, seen, self.plan.patterns[full], stored)
        return list(jobs.values())

    def _dense(self, parameter: str, layer: nn.Linear) -> Tensor:
        """Return a layer's weight (O, I) in float32, just as it is stored: the block may compute in a narrower type."""
        weight_OI, stored = layer.weight.detach(), self.model.dtype(parameter)
        whole = torch.promote_types(stored, weight_OI.dtype) is weight_OI.dtype or weight_OI.dtype is torch.float32
        return weight_OI.float() if whole else self.model.read(parameter)


@dataclass
class _Job:
    """One layer to prune, and what comes of it: the weight in the checkpoint's type, and the mask."""

    name: str
    tensor: str
    layer: nn.Linear
    dense: Callable[[], Tensor]  # gives the weight as it is stored, in float32
    statistics: Statistics
    pattern: SparsityPattern
    dtype: torch.dtype
    raised: float | None = None

    def prune(self, pruner: Pruner) -> None:
        """Fill in `weight_OI` and `mask_OI`."""
        weight_OI, self.mask_OI = pruner.prune(self.dense(), self.statistics, self.pattern)
        self.raised = self.statistics.raised_damping
        self.take(weight_OI)

    def take(self, weight_OI: Tensor) -> None:
        """Round a weight (O, I) to the checkpoint's type, +0.0 where it is pruned.

        Raises:
            CheckFailed: a weight is too great for that type.
        """
        self.weight_OI = masked(weight_OI.to(self.dtype), self.mask_OI)
        if not all(math.isfinite(bound) for bound in self.weight_OI.aminmax()):
            raise CheckFailed(f"{self.name}: a pruned weight is too great for {self.dtype}; use another method")

    def send(self, group: ProcessGroup, owner: int) -> None:
        """Bring the owner's result to all processes."""
        if group.rank != owner:
            self.weight_OI = torch.empty_like(self.layer.weight, dtype=self.dtype)
            self.mask_OI = torch.empty_like(self.layer.weight, dtype=torch.bool)
        raised = torch.tensor(self.raised or 0.0, device=self.weight_OI.device, dtype=torch.float64)
        for tensor in (self.weight_OI.view(torch.uint8), self.mask_OI.view(torch.uint8), raised):
            group.send(tensor, owner)
        self.raised = float(raised) or None

    def note(self) -> PrunedLayer:
        kept, size = int(self.mask_OI.sum()), self.mask_OI.numel()
        return PrunedLayer(self.name, self.tensor, str(self.pattern), kept, size, self.raised)
