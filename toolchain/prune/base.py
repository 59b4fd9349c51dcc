"""What a pruner is: its name, its function over one layer, the statistics it needs, and its paper."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.prune.refit import refit
from vlmc.toolchain.prune.statistics import Need, Statistics

PruneLayer = Callable[[Tensor, Statistics, SparsityPattern], tuple[Tensor, Tensor]]
"""(weight_OI in float32, statistics, pattern) -> (pruned weight_OI with exact zeros, boolean keep-mask_OI)."""


@dataclass(frozen=True)
class Pruner:
    """One pruning algorithm."""

    name: str
    prune: PruneLayer
    need: Need
    url: str


def with_refit(pruner: Pruner) -> Pruner:
    """Return the pruner followed by a least-squares refit of the weights that its mask keeps."""

    def prune(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> tuple[Tensor, Tensor]:
        pruned_OI, mask_OI = pruner.prune(weight_OI, statistics, pattern)
        return refit(weight_OI, pruned_OI, mask_OI, statistics), mask_OI

    return Pruner(f"{pruner.name}+refit", prune, Need.HESSIAN, pruner.url)
