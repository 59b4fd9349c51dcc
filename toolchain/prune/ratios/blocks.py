"""Sharing out a percentage over a model's blocks; what each can lose is first measured on the dense model."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration import Calibration, Need
from vlmc.toolchain.families.base import linears
from vlmc.toolchain.machine.progress import Task
from vlmc.toolchain.prune.ratios.ecoflap import ecoflap, importance, zeroth_order
from vlmc.toolchain.prune.ratios.owl import outliers, owl
from vlmc.toolchain.prune.ratios.sharing import patterns, percentage, sizes

SAMPLES = 16  # for ECoFLaP's losses: each block takes two passes of the whole model for each sample
_SHARERS = {"owl": owl, "ecoflap": ecoflap}

Blocks = Mapping[str, Sequence[str]]
"""The names of the layers to share out over, by the names of their blocks."""


def allot(
    ratios: str, target: SparsityPattern, blocks: Blocks, scores: Mapping[str, float], model: nn.Module
) -> dict[str, SparsityPattern]:
    """Return the pattern of each layer of these blocks; the blocks' scores say how much each can lose.

    Raises:
        InputError: the target is N:M.
    """
    shapes = {block: {name: _shape(model, name) for name in layers} for block, layers in blocks.items()}
    shared = _SHARERS[ratios]({block: scores[block] for block in blocks}, sizes(shapes), percentage(target, ratios))
    return patterns(shared, shapes)


@torch.no_grad()
def outlier_scores(calibration: Calibration, blocks: Blocks) -> dict[str, float]:
    """Return OWL's share of outliers of each block, all of them dense."""
    shares = {}
    for block in calibration.walk(blocks, Need.DIAGONAL):
        layers = {name: layer for name, layer in linears(block.module) if f"{block.name}.{name}" in blocks[block.name]}
        measured = [(layers[name].weight, block.statistics[name].squares_I) for name in layers if name in block.statistics]
        shares[block.name] = outliers(measured)
    return shares


@torch.no_grad()
def gradient_scores(calibration: Calibration, blocks: Blocks, seed: int, bar: Task) -> dict[str, float]:
    """Return ECoFLaP's score of each block; the calibration's samples must hold labels.

    Raises:
        InputError: a loss is NaN or infinite.
    """
    count, group = min(len(calibration.samples), SAMPLES), calibration.group

    def loss(sample: int) -> float:
        return float(calibration.loss(sample))

    scores = {}
    for number, (block, layers) in enumerate(blocks.items()):
        with calibration.model.resident(block) as module:
            weights = [layer.weight.data for name, layer in linears(module) if f"{block}.{name}" in layers]
            norm = torch.tensor(zeroth_order({block: weights}, loss, count, seed + number)[block])
            group.add_up([norm])
            scores[block] = importance(weights, float(norm) / group.size)
        bar.advance()
    return scores


def _shape(model: nn.Module, layer: str) -> tuple[int, int]:
    rows, columns = model.get_parameter(f"{layer}.weight").shape
    return rows, columns
