"""Magnitude pruning: keep the largest weights (Han et al. 2015, arXiv 1506.02626)."""

from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Statistics
from vlmc.toolchain.models.masks import masked


def magnitude(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> tuple[Tensor, Tensor]:
    """Score |W|; return the masked weight (O, I) and its keep-mask (O, I)."""
    mask_OI = pattern.mask(weight_OI.abs())
    return masked(weight_OI, mask_OI), mask_OI
