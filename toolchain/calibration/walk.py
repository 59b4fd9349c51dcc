"""The sweep: block by block, each calibrated on what the already pruned blocks before it give out.

One block's weights and statistics live at a time. Samples run one by one, so different lengths need no padding.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vlmc.toolchain.calibration.gathering import gathering
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.calibration.tokens import Tokens
from vlmc.toolchain.families.base import Family, Tower
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.models.streaming.activations import Activations, same
from vlmc.toolchain.models.streaming.stack import Passed, Stack
from vlmc.toolchain.models.streaming.weights import StreamedModel

Feed = dict[str, Tensor]
Run = Callable[[int], Passed]
"""Takes one sample, by number, through the block."""


class Visitor(ABC):
    """What is done with each block on the way."""

    need: Need  # how much of the Hessian a visit needs
    looks: bool  # whether it looks at data at all; if not, no sample runs

    def finished(self, name: str) -> bool:
        """Whether the block needs no visit: its weights are final."""
        return False

    @abstractmethod
    def visit(
        self, name: str, block: nn.Module, statistics: dict[str, Statistics], samples: Sequence[int], run: Run
    ) -> None:
        """Work on a block whose weights are there; the statistics are by the names of layers inside it."""


class Sweep:
    """Calibration samples on their way through a model; `spill` is a folder for activations, None keeps them in memory."""

    def __init__(
        self, model: StreamedModel, family: Family, feeds: Sequence[Feed], group: ProcessGroup, spill: Path | None = None
    ) -> None:
        self.model, self.family, self.feeds, self.group = model, family, feeds, group
        self._spill = spill
        self._behind: _Behind | None = None

    @torch.no_grad()
    def tower(self, tower: Tower, visitor: Visitor, tokens: Tokens | None = None) -> None:
        """Visit a tower's blocks in order; `tokens` weighs the tokens of its input, None weighs all alike.

        Raises:
            InputError: activations are NaN or infinite; the message gives the layer's full name.
        """
        blocks = self.family.blocks(self.model.module, tower)
        walk = _Walk(self, Stack(self.model.module, blocks), tokens)
        behind = self._behind if self._behind is not None and self._behind.visitor is visitor else None
        self._behind = None
        last = max((number for number, (name, _) in enumerate(blocks) if not visitor.finished(name)), default=-1)
        if visitor.looks and last >= 0:
            walk.record(behind)
        del behind
        for number, (name, _) in enumerate(blocks[: last + 1]):
            with self.model.resident(name) as block, walk.stack.at(number) as through:
                run = walk.runner(number, through)
                if not visitor.finished(name):
                    statistics = walk.gather(name, block, visitor.need, run)
                    visitor.visit(name, block, statistics, walk.samples, run)
                if number < last and visitor.looks:
                    walk.move_on(run)
        if visitor.looks and 0 < last == len(blocks) - 1:
            self._behind = _Behind(visitor, walk.stack, walk.outputs)

    def by_block(self, layers: Sequence[str]) -> dict[str, list[str]]:
        """Sort layers' names by the names of their blocks, which come in order of execution."""
        family, module = self.family, self.model.module
        blocks = [name for tower in family.towers for name, _ in family.blocks(module, tower)]
        found = {block: [name for name in layers if name.startswith(f"{block}.")] for block in blocks}
        return {block: names for block, names in found.items() if names}

    def activations(self, name: str) -> Activations:
        """Return an empty store; `name` tells it from others on disk."""
        return Activations(self.model.device, None if self._spill is None else self._spill / name)

    def feed(self, sample: int) -> Feed:
        """Return one sample's input on the model's device, floats in the type that the model computes in."""
        device, precision = self.model.device, self.model.precision
        feed = self.feeds[sample].items()
        return {name: x.to(device, precision if x.is_floating_point() else x.dtype) for name, x in feed}


@dataclass(frozen=True)
class _Behind:
    """The tower that was swept last: what its last block but one gave for every sample."""

    visitor: Visitor
    stack: Stack
    outputs: Activations


class _Walk:
    """All samples' arguments for one tower, and what its last finished block gave for each."""

    def __init__(self, sweep: Sweep, stack: Stack, tokens: Tokens | None) -> None:
        self.stack = stack
        self.samples = range(len(sweep.feeds))
        self._sweep, self._tokens = sweep, tokens
        self._calls, self.outputs = sweep.activations("calls"), sweep.activations("outputs")

    def record(self, behind: _Behind | None) -> None:
        """Run every sample up to the tower; from the last block of the tower `behind` it, where that comes to the same."""
        samples = self.samples if behind is None else self._record_from(behind)
        if samples:
            with self._sweep.model.ready(partial(self._record, samples[0])):
                for sample in samples[1:]:
                    self._record(sample)

    def _record_from(self, behind: _Behind) -> Sequence[int]:
        """Run samples from the last block of a tower that was swept; return those that must still run as a whole.

        The model may look at more of a tower than its last two blocks. So the first sample runs both ways; and where a
        sample takes several turns through the tower, of which one was kept, it and those after it have to run as a whole.
        """
        self._record(self.samples[0])
        whole = self._calls.get(self.samples[0])

        def run(sample: int) -> bool:
            walk.give(behind.outputs.get(sample))
            behind.outputs.drop(sample)
            self._record(sample)
            return walk.turns == 1

        with behind.stack.from_last() as walk, self._sweep.model.ready(partial(run, self.samples[0])):
            if walk.turns != 1 or not same(whole, self._calls.get(self.samples[0])):
                return self.samples
            return next((self.samples[place:] for place in self.samples[1:] if not run(place)), ())

    def _record(self, sample: int) -> None:
        feed = self._sweep.feed(sample)
        self._calls.put(sample, self.stack.record(partial(self._sweep.model.module, **feed, use_cache=False)))

    def runner(self, number: int, through: Callable[..., Passed]) -> Run:
        """Return what takes a sample through the block of that number."""

        def run(sample: int) -> Passed:
            previous = self.outputs.get(sample) if number else None
            return through(self._calls.get(sample), previous)

        return run

    def gather(self, name: str, block: nn.Module, need: Need, run: Run) -> dict[str, Statistics]:
        """Return the statistics of the block's layers over all samples of all processes."""
        if need is Need.NOTHING:
            return {}
        weights = [self._weights(sample, run) for sample in self.samples]
        with gathering(name, block, need) as gathered:
            for sample, weights_T in zip(self.samples, weights, strict=True):
                gathered.run(partial(run, sample), weights_T)
        for seen in {id(seen): seen for seen in gathered.statistics.values()}.values():  # layers with one input share theirs
            self._sweep.group.add_up(seen.sums())
        return gathered.statistics

    def move_on(self, run: Run) -> None:
        """Keep what the block gives for every sample."""
        for sample in self.samples:
            self.outputs.put(sample, run(sample).output)

    def _weights(self, sample: int, run: Run) -> Tensor | None:
        if self._tokens is None:
            return None
        return self._tokens.weights(sample, partial(run, sample)).to(self._sweep.model.device)
