"""Magnitude pruning: keep the largest weights (Han et al. 2015, arXiv 1506.02626)."""

from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Statistics
from vlmc.toolchain.models.masks import masked
from vlmc.toolchain.prune.methods.base import Found


def magnitude(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> Found:
    """Score |W|, compared per group or per output row."""
    mask_OI = pattern.mask(weight_OI.abs())
    return Found(masked(weight_OI, mask_OI), mask_OI)
