"""What a pruner is: its name, its function over one layer, the statistics it needs, and its paper."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.prune.dsnot import dsnot
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
    moves: bool = False  # whether the weights that stay change too, to make up for those that go


def with_refit(pruner: Pruner) -> Pruner:
    """Return the pruner followed by a least-squares refit of the weights that its mask keeps."""

    def prune(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> tuple[Tensor, Tensor]:
        pruned_OI, mask_OI = pruner.prune(weight_OI, statistics, pattern)
        return refit(weight_OI, pruned_OI, mask_OI, statistics), mask_OI

    return Pruner(f"{pruner.name}+refit", prune, Need.HESSIAN, pruner.url, moves=True)


def with_dsnot(pruner: Pruner) -> Pruner:
    """Return the pruner followed by swaps between the weights that its mask keeps and those that it prunes.

    Raises:
        InputError: the pruner moves the weights that stay; they fit its own mask and no other.
    """
    if pruner.moves:
        raise InputError(f"--dsnot changes masks, and the weights of {pruner.name} fit its own: use wanda or magnitude")

    def prune(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> tuple[Tensor, Tensor]:
        _, mask_OI = pruner.prune(weight_OI, statistics, pattern)
        return dsnot(weight_OI, mask_OI, statistics, pattern)

    return Pruner(f"{pruner.name}+dsnot", prune, max(pruner.need, Need.DIAGONAL), pruner.url)
