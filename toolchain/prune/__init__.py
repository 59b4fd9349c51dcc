"""Pruning: from a dense model and calibration samples to a journal of pruned blocks.

- `methods`: what prunes a layer, by its weight and statistics; `refinements`: what may follow, for a layer or a block.
- `options`, `patterns`: which method, and which layer to which pattern; `ratios`: a percentage shared out over blocks.
- `model`: the whole model; `blocks`: one block after the other; `layers`: one layer; `journal`: what is done already.

A new pruner is a file in `methods` with one function over one layer, and a line in its table `PRUNERS`.
"""

from vlmc.toolchain.prune.methods import PRUNERS, Pruner
from vlmc.toolchain.prune.model import ModelPruner, PrunedModel
from vlmc.toolchain.prune.options import check_options, pruner_of, targets_of

__all__ = ["PRUNERS", "ModelPruner", "PrunedModel", "Pruner", "check_options", "pruner_of", "targets_of"]
