"""What a pruner is: its name, its function over one layer, what it needs of the calibration data, and its paper."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics


class Found(NamedTuple):
    """A pruned layer: its weight (O, I) with exact zeros, its boolean keep-mask (O, I), the damping if it was raised."""

    weight_OI: Tensor
    mask_OI: Tensor
    raised_damping: float | None = None


PruneLayer = Callable[[Tensor, Statistics, SparsityPattern], Found]
"""(weight_OI in float32, statistics, pattern) -> the pruned layer; what it is given stays as it is."""


@dataclass(frozen=True)
class Pruner:
    """One pruning algorithm."""

    name: str
    prune: PruneLayer
    need: Need
    url: str
    moves: bool = False  # whether the kept weights change too, to make up for the pruned ones
