"""Pruning: a table of pruners by name, and the way of a whole model through one of them.

- `patterns`: which layer is pruned to what; `ratios`: a percentage shared out over blocks, where they differ.
- `sweeping`: block after block on the calibration data, which gathers each layer's `statistics`.
- `methods`: what prunes a layer by them; `refinements`: what may follow, for a layer or its whole block.

A new pruner is a file in `methods` with one function over one layer, and a line in `PRUNERS`.
"""

from vlmc.toolchain.calibration.statistics import Need
from vlmc.toolchain.prune.methods.admm import admm
from vlmc.toolchain.prune.methods.base import Pruner
from vlmc.toolchain.prune.methods.magnitude import magnitude
from vlmc.toolchain.prune.methods.sparsegpt import sparsegpt
from vlmc.toolchain.prune.methods.wanda import wanda
from vlmc.toolchain.prune.refinements.dsnot import with_dsnot
from vlmc.toolchain.prune.refinements.refit import with_refit

__all__ = ["PRUNERS", "Pruner", "with_dsnot", "with_refit"]

PRUNERS: dict[str, Pruner] = {
    pruner.name: pruner
    for pruner in (
        Pruner("magnitude", magnitude, Need.NOTHING, "https://arxiv.org/abs/1506.02626"),
        Pruner("wanda", wanda, Need.DIAGONAL, "https://arxiv.org/abs/2306.11695"),
        Pruner("admm", admm, Need.HESSIAN, "https://arxiv.org/abs/2401.02938", moves=True),
        Pruner("sparsegpt", sparsegpt, Need.HESSIAN, "https://arxiv.org/abs/2301.00774", moves=True),
    )
}
