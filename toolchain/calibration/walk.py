"""The walk over calibration data: block by block, each measured on what the already pruned blocks before it give out.

One block's weights and statistics live at a time. Samples run one by one, so different lengths need no padding.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.errors import InputError
from vlmc.toolchain.calibration.gathering import gathering
from vlmc.toolchain.calibration.inputs import Inputs, on_device
from vlmc.toolchain.calibration.passage import Passage
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.calibration.tokens import Tokens
from vlmc.toolchain.families.base import Family, Tower
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.models.own_code import own_code
from vlmc.toolchain.models.streaming.activations import Activations
from vlmc.toolchain.models.streaming.stack import Passed, Stack
from vlmc.toolchain.models.streaming.weights import StreamedModel


@dataclass(frozen=True)
class Block:
    """A block on the walk, with its weights on the device.

    `statistics` are those of its layers' inputs over the samples of all processes, by the layers' names inside the block;
    layers that read the same tensor share theirs. `run` takes one of this process's `samples`, by number, through the block
    with the weights that it has by then; gradients are recorded where the caller enables them. The samples without an image
    are not among those of a vision encoder's blocks.
    """

    name: str
    module: nn.Module
    statistics: dict[str, Statistics]
    run: Callable[[int], Passed]
    samples: Sequence[int]


@dataclass(frozen=True)
class Calibration:
    """A model and the samples that run through it.

    `inputs` are this process's samples; `tokens` weighs the tokens of the language model's input, None weighs all alike;
    `spill` is a folder for what runs between blocks, None keeps it in memory.
    """

    model: StreamedModel
    family: Family
    inputs: Sequence[Inputs]
    group: ProcessGroup
    tokens: Tokens | None = None
    spill: Path | None = None

    def walk(self, blocks: Collection[str], need: Need) -> Iterator[Block]:
        """Yield the blocks of these names in order of execution, each measured on what the blocks before it give out now.

        The next blocks of the tower run on what a block gives out after the loop's body. Later towers run on the model's
        files: a change of weights that they should see must be put there with `model.replace`. Blocks of other names are
        not yielded, and run only where one of these depends on them.

        Raises:
            InputError: activations are NaN or infinite; the message gives the layer's full name. Or no sample has an image,
                which a tower needs.
        """
        runs, earlier = need is not Need.NOTHING, None
        for tower in self.family.towers:
            found = self.family.blocks(self.model.module, tower)
            last = max((number for number, (name, _) in enumerate(found) if name in blocks), default=None)
            if last is None:
                continue
            samples = self._through(tower) if runs else self.samples
            passage = Passage(self.model, Stack(self.model.module, found), self.inputs, samples, self.spill)
            if runs:
                passage.enter(earlier)
            for number, (name, _) in enumerate(found[: last + 1]):
                with self.model.resident(name) as module:
                    if name in blocks:
                        passes = {sample: partial(passage.run, number, sample) for sample in samples}
                        statistics = self._statistics(name, module, need, passes, self._tokens(tower))
                        yield Block(name, module, statistics, partial(passage.run, number), samples)
                    if runs and number < last:
                        passage.move_on(number)
            earlier = passage.leave(last) if runs else None

    @property
    def samples(self) -> range:
        """The numbers of this process's samples."""
        return range(len(self.inputs))

    def _through(self, tower: Tower) -> Sequence[int]:
        """Return the samples that run through a tower: all, or those with images."""
        if tower.part is Part.LANGUAGE:
            return self.samples
        found = [sample for sample in self.samples if "pixel_values" in self.inputs[sample]]
        if not found:
            raise InputError("no calibration sample has an image, and vision layers are to be pruned: add data with images")
        return found

    def loss(self, sample: int) -> Tensor:
        """Return the whole model's loss on one sample, which must hold labels; it may be called on the walk too."""
        with own_code():
            loss: Tensor = self.model.module(**on_device(self.inputs[sample], self.model), use_cache=False).loss
        return loss

    def by_block(self, layers: Iterable[str]) -> dict[str, list[str]]:
        """Sort layers' names by the names of their blocks, which come in order of execution."""
        family, module, names = self.family, self.model.module, list(layers)
        blocks = [name for tower in family.towers for name, _ in family.blocks(module, tower)]
        found = {block: [name for name in names if name.startswith(f"{block}.")] for block in blocks}
        return {block: inside for block, inside in found.items() if inside}

    def activations(self, name: str) -> Activations:
        """Return an empty store for what a block gives out; `name` tells it from others on disk."""
        return Activations(self.model.device, self.spill and self.spill / name)

    def _tokens(self, tower: Tower) -> Tokens | None:
        return self.tokens if tower.part is Part.LANGUAGE and tower.mixed else None

    @torch.no_grad()
    def _statistics(
        self, name: str, module: nn.Module, need: Need, passes: Mapping[int, Callable[[], Passed]], tokens: Tokens | None
    ) -> dict[str, Statistics]:
        """Measure the inputs of the block's layers over the samples of all processes; `passes` runs this process's own."""
        if need < Need.DIAGONAL:
            return {}
        weights: dict[int, Tensor] = {}
        if tokens is not None:
            weights = {sample: tokens.weights(sample, once).to(self.model.device) for sample, once in passes.items()}
        with gathering(name, module, need) as gathered:
            for sample, once in passes.items():
                gathered.run(once, weights.get(sample))
        for seen in {id(seen): seen for seen in gathered.statistics.values()}.values():  # each once, though layers share
            self.group.add_up(seen.sums())
        return gathered.statistics
