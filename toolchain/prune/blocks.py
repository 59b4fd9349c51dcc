"""Pruning block after block on the calibration data; each goes into the journal as soon as it is done.

Shapes: O out features, I in features.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration import Block, Calibration, Need, Statistics
from vlmc.toolchain.families.base import linears
from vlmc.toolchain.machine.memory import keep_large_apart, return_memory
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.streaming.activations import Activations
from vlmc.toolchain.prune.journal import Journal
from vlmc.toolchain.prune.layers import LayerJob
from vlmc.toolchain.prune.methods import Pruner
from vlmc.toolchain.prune.refinements.reconstruct import Objective, Reconstruction, reconstruct


@dataclass(frozen=True)
class Pruning:
    """How a model is pruned: by what, and which layer to which pattern; layers that are not named stay dense.

    With `epochs`, each pruned block is then trained for so many passes over the samples, in an order that the seed draws.
    """

    pruner: Pruner
    patterns: Mapping[str, SparsityPattern]
    epochs: int = 0
    seed: int = 0

    @property
    def need(self) -> Need:
        """What it needs of the calibration data."""
        return max(self.pruner.need, Need.RUNS if self.epochs else Need.NOTHING)


@torch.no_grad()
def prune_blocks(pruning: Pruning, calibration: Calibration, journal: Journal, progress: Progress) -> list[str]:
    """Prune all blocks that hold a layer to prune, but for those in the journal already; return the names of all of them."""
    keep_large_apart()
    blocks = list(calibration.by_block(pruning.patterns))
    finished = calibration.group.tell([name for name in blocks if journal.holds(name)])
    work = _BlockPruner(pruning, calibration, journal)
    for name in finished:
        work.take_over(name)
    with progress.task("prune", len(blocks), done=len(finished)) as bar:
        for block in calibration.walk(set(blocks).difference(finished), pruning.need):
            work.prune(block)
            bar.advance()
    return blocks


class _BlockPruner:
    """Prunes the layers of one block after the other."""

    def __init__(self, pruning: Pruning, calibration: Calibration, journal: Journal) -> None:
        self.pruning, self.calibration, self.journal = pruning, calibration, journal
        self.model, self.group = calibration.model, calibration.group
        self._tensors: set[str] = set()  # a tensor that several layers share is pruned with the first of them

    def take_over(self, name: str) -> None:
        """Read a finished block's weights from the journal from now on."""
        for layer in self.journal.layers(name):
            self._tensors.add(layer.tensor)
            self.model.replace(f"{layer.name}.weight", self.journal.path(name), layer.tensor)

    def prune(self, block: Block) -> None:
        """Prune a block and write it to the journal; it computes with the pruned weights from now on."""
        jobs = self._jobs(block)
        dense = self._outputs(block) if self.pruning.epochs else None
        self._prune(self.group.share(jobs))
        for place, job in enumerate(jobs):
            job.send(self.group, place % self.group.size)
        self._place(block, jobs)
        trained = None if dense is None else self._reconstruct(block, jobs, dense)
        if self.group.is_main:
            weights, masks = {job.tensor: job.weight_OI for job in jobs}, {job.tensor: job.mask_OI for job in jobs}
            self.journal.write(block.name, [job.note() for job in jobs], weights, masks, trained)
            del weights, masks
        self.group.wait()
        self.take_over(block.name)
        jobs.clear()
        return_memory()

    def _jobs(self, block: Block) -> list[LayerJob]:
        jobs: dict[str, LayerJob] = {}
        for inner, layer in linears(block.module):
            name = f"{block.name}.{inner}"
            tensor = self.model.stored(f"{name}.weight")
            if name not in self.pruning.patterns or tensor in self._tensors or tensor in jobs:
                continue
            dense = partial(self._dense, f"{name}.weight", layer)
            statistics, dtype = self._statistics(block, inner, layer), self.model.dtype(f"{name}.weight")
            jobs[tensor] = LayerJob(name, tensor, layer, dense, statistics, self.pruning.patterns[name], dtype)
        return list(jobs.values())

    def _statistics(self, block: Block, inner: str, layer: nn.Linear) -> Statistics:
        if self.pruning.pruner.need is Need.NOTHING:
            return block.statistics.get(inner) or Statistics(layer.in_features, Need.NOTHING, layer.weight.device)
        if inner not in block.statistics:
            name = f"{block.name}.{inner}"
            raise InputError(f"{name} never ran on the calibration data: leave it dense with --layers '{name}=none'")
        return block.statistics[inner]

    def _dense(self, parameter: str, layer: nn.Linear) -> Tensor:
        """Return a layer's weight (O, I) in float32, exactly as stored: the block may compute in a narrower type."""
        weight_OI, stored = layer.weight.detach(), self.model.dtype(parameter)
        whole = torch.promote_types(stored, weight_OI.dtype) is weight_OI.dtype or weight_OI.dtype is torch.float32
        return weight_OI.float() if whole else self.model.read(parameter)

    def _prune(self, jobs: Sequence[LayerJob]) -> None:
        """Prune layers; a Hessian is freed with the last layer that shares it."""
        users = Counter(id(job.statistics) for job in jobs)
        for job in jobs:
            job.prune(self.pruning.pruner)
            users[id(job.statistics)] -= 1
            if not users[id(job.statistics)]:
                job.statistics.release()
                return_memory()

    def _place(self, block: Block, jobs: Sequence[LayerJob]) -> None:
        """Let the block, and the layers that are tied to its own, compute with the pruned weights."""
        weights = {job.tensor: job.weight_OI for job in jobs}
        for inner, layer in linears(block.module):
            weight_OI = weights.get(self.model.stored(f"{block.name}.{inner}.weight"))
            if weight_OI is None:
                continue
            if weight_OI.dtype is layer.weight.dtype:
                layer.weight.data = weight_OI  # one copy is enough
            else:
                layer.weight.data.copy_(weight_OI)

    def _outputs(self, block: Block) -> Activations:
        """Return what the block, still dense, gives out for every sample."""
        outputs = self.calibration.activations("dense")
        for sample in block.samples:
            outputs.put(sample, block.run(sample).after)
        return outputs

    def _reconstruct(self, block: Block, jobs: Sequence[LayerJob], dense: Activations) -> Reconstruction:
        """Train the kept weights towards what the dense block gave out for the same inputs."""
        masks = {job.name.removeprefix(f"{block.name}."): job.mask_OI for job in jobs}
        samples = block.samples
        objective = Objective(
            len(samples), lambda place: block.run(samples[place]).after, lambda place: dense.get(samples[place])
        )
        found = reconstruct(block.module, masks, objective, self.pruning.epochs, self.pruning.seed)
        for job in jobs:
            job.take(job.layer.weight.detach())
        self._place(block, jobs)
        return found
