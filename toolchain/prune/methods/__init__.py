"""Methods: how one layer is pruned, by its weight and the statistics of its inputs.

A new pruner is a file here with one function over one layer, and a line in `PRUNERS`.
"""

from vlmc.toolchain.calibration.statistics import Need
from vlmc.toolchain.prune.methods import admm, magnitude, sparsegpt, wanda
from vlmc.toolchain.prune.methods.base import Found, Pruner

__all__ = ["PRUNERS", "Found", "Pruner"]

PRUNERS: dict[str, Pruner] = {
    pruner.name: pruner
    for pruner in (
        Pruner("magnitude", magnitude.magnitude, Need.NOTHING, "https://arxiv.org/abs/1506.02626"),
        Pruner("wanda", wanda.wanda, Need.DIAGONAL, "https://arxiv.org/abs/2306.11695"),
        Pruner("admm", admm.admm, Need.HESSIAN, "https://arxiv.org/abs/2401.02938", moves=True),
        Pruner("sparsegpt", sparsegpt.sparsegpt, Need.HESSIAN, "https://arxiv.org/abs/2301.00774", moves=True),
    )
}
