"""Sharing out a percentage over a model's blocks: what each can lose is measured on the dense model first."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.calibration.tokens import Tokens
from vlmc.toolchain.calibration.walk import Run, Sweep, Visitor
from vlmc.toolchain.families.base import linears
from vlmc.toolchain.machine.progress import Task
from vlmc.toolchain.prune.ratios.ecoflap import ecoflap, importance, zeroth_order
from vlmc.toolchain.prune.ratios.owl import outliers, owl
from vlmc.toolchain.prune.ratios.sharing import patterns, percentage, sizes

SAMPLES = 16  # that ECoFLaP's losses are taken on: each block costs two passes of the whole model for each
_SHARERS = {"owl": owl, "ecoflap": ecoflap}

Blocks = Mapping[str, Sequence[str]]
"""The names of the layers to share out over, by the names of their blocks."""


def allot(
    ratios: str, target: SparsityPattern, blocks: Blocks, scores: Mapping[str, float], model: nn.Module
) -> dict[str, SparsityPattern]:
    """Return the pattern of each layer of these blocks, by what the blocks' scores say that each can lose.

    Raises:
        InputError: the target is N:M.
    """
    shapes = {block: {name: _shape(model, name) for name in layers} for block, layers in blocks.items()}
    shared = _SHARERS[ratios]({block: scores[block] for block in blocks}, sizes(shapes), percentage(target, ratios))
    return patterns(shared, shapes)


def outlier_scores(sweep: Sweep, part: Part, blocks: Blocks, tokens: Tokens | None) -> dict[str, float]:
    """Return OWL's share of outliers of each block of one part."""
    visitor = _Outliers(blocks)
    for tower in sweep.family.towers:
        if tower.part is part:
            sweep.tower(tower, visitor, tokens if tower.mixed else None)
    return visitor.shares


def gradient_scores(sweep: Sweep, blocks: Blocks, seed: int, bar: Task) -> dict[str, float]:
    """Return ECoFLaP's score of each block; the sweep's feeds must hold labels.

    Raises:
        InputError: a loss is NaN or infinite.
    """
    count = min(len(sweep.feeds), SAMPLES)

    def loss(sample: int) -> float:
        with torch.no_grad():
            return float(sweep.model.module(**sweep.feed(sample), use_cache=False).loss)

    scores = {}
    for number, (block, layers) in enumerate(blocks.items()):
        with sweep.model.resident(block) as module:
            weights = [layer.weight.data for name, layer in linears(module) if f"{block}.{name}" in layers]
            norm = torch.tensor(zeroth_order({block: weights}, loss, count, seed + number)[block])
            sweep.group.add_up([norm])
            scores[block] = importance(weights, float(norm) / sweep.group.size)
        bar.advance()
    return scores


class _Outliers(Visitor):
    """Measures the dense blocks and leaves them as they are."""

    need, looks = Need.DIAGONAL, True

    def __init__(self, blocks: Blocks) -> None:
        self.shares: dict[str, float] = {}
        self._blocks = blocks

    def finished(self, name: str) -> bool:
        return name not in self._blocks

    def visit(
        self, name: str, block: nn.Module, statistics: dict[str, Statistics], samples: Sequence[int], run: Run
    ) -> None:
        chosen = [inner for inner, _ in linears(block) if f"{name}.{inner}" in self._blocks[name] and inner in statistics]
        found = dict(linears(block))
        self.shares[name] = outliers([(found[inner].weight.detach(), statistics[inner].squares_I) for inner in chosen])


def _shape(model: nn.Module, layer: str) -> tuple[int, int]:
    rows, columns = model.get_parameter(f"{layer}.weight").shape
    return rows, columns
