"""What a pruner is: its name, its function over one layer, the statistics it needs, and its paper."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics

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
