"""Pruners: one typed function over one layer each, in a table by name.

A new one is a file with such a function and a line in `PRUNERS`.
"""

from vlmc.toolchain.prune.admm import admm
from vlmc.toolchain.prune.base import Pruner, with_dsnot, with_refit
from vlmc.toolchain.prune.magnitude import magnitude
from vlmc.toolchain.prune.sparsegpt import sparsegpt
from vlmc.toolchain.prune.statistics import Need
from vlmc.toolchain.prune.wanda import wanda

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
