"""Wanda: weights times the norm of their inputs (Sun et al. 2023, arXiv 2306.11695, equation 1)."""

from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Statistics
from vlmc.toolchain.models.masks import masked
from vlmc.toolchain.prune.methods.base import Found


def wanda(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> Found:
    """Score |W_ij| sqrt(H_jj), compared per group or per output row."""
    mask_OI = pattern.mask(weight_OI.abs() * statistics.squares_I.sqrt())
    return Found(masked(weight_OI, mask_OI), mask_OI)
