"""DSnoT: swap kept for pruned weights until each output's mean is near the dense one (arXiv 2310.08915, algorithm 1).

Shapes: O out features, I in features, R rows worked on at once, G groups of M weights (one of all where unstructured). With
m_j and v_j the mean and the variance of input j, a row's expected error, dense minus sparse, is e = sum of W_j m_j over its
pruned j.
"""

import torch
from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.prune.methods.base import Found, Pruner

CYCLES = 50  # the most swaps of a row
SETTLED = 0.1  # a row is done once |e| is no more than this
ROWS = 256


def with_dsnot(pruner: Pruner) -> Pruner:
    """Return the pruner followed by swaps between the weights that its mask keeps and those that it prunes.

    Raises:
        InputError: the pruner changes the weights that it keeps: they fit its own mask and no other.
    """
    if pruner.moves:
        raise InputError(
            f"--dsnot changes masks, and the weights of {pruner.name} fit its own mask only: use wanda or magnitude"
        )

    def prune(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> Found:
        found = pruner.prune(weight_OI, statistics, pattern)
        return Found(*dsnot(weight_OI, found.mask_OI, statistics, pattern), found.raised_damping)

    return Pruner(f"{pruner.name}+dsnot", prune, max(pruner.need, Need.DIAGONAL), pruner.url)


def dsnot(dense_OI: Tensor, mask_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> tuple[Tensor, Tensor]:
    """Return the dense weight (O, I) under a new keep-mask, and that mask (O, I); every group keeps as many as before.

    A swap grows the pruned weight that lowers |e| most for its v_j, then prunes the weight of the same group with the least
    |W_j| sqrt(H_jj) among those whose loss lowers |e| as well. A row is also done when its next swap would overshoot so far
    that |e| rises, which the paper does not ask.
    """
    pieces = zip(torch.split(dense_OI, ROWS), torch.split(mask_OI, ROWS), strict=True)
    size = pattern.m or dense_OI.shape[1]
    new_OI = torch.cat([_settle(dense_RI, mask_RI.clone(), statistics, size) for dense_RI, mask_RI in pieces])
    return dense_OI.masked_fill(~new_OI, 0.0), new_OI


def _settle(dense_RI: Tensor, mask_RI: Tensor, statistics: Statistics, size: int) -> Tensor:
    """Swap in place; return the mask (R, I)."""
    effect_RI, cost_RI = dense_RI * statistics.mean_I, dense_RI.abs() * statistics.squares_I.sqrt()
    variance_I = statistics.variance_I.clamp_min(torch.finfo(dense_RI.dtype).tiny)
    error_R = (effect_RI * ~mask_RI).sum(1)
    open_R = error_R.abs() > SETTLED
    for _ in range(CYCLES):
        rows_R = open_R.nonzero()[:, 0]
        if not len(rows_R):
            break
        gain_RI = effect_RI[rows_R] * error_R[rows_R, None].sign()  # how far |e| falls if grown, rises if pruned
        grown_R, pruned_R, found_R = _choose(gain_RI, gain_RI / variance_I, cost_RI[rows_R], mask_RI[rows_R], size)
        after_R = error_R[rows_R] - effect_RI[rows_R, grown_R] + effect_RI[rows_R, pruned_R]
        found_R &= after_R.abs() < error_R[rows_R].abs()
        open_R[rows_R] = found_R & (after_R.abs() > SETTLED)
        swapped_R = rows_R[found_R]
        error_R[swapped_R] = after_R[found_R]
        mask_RI[swapped_R, grown_R[found_R]] = True
        mask_RI[swapped_R, pruned_R[found_R]] = False
    return mask_RI


def _choose(gain_RI: Tensor, worth_RI: Tensor, cost_RI: Tensor, mask_RI: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's columns to grow and to prune (R), and whether there are such (R)."""
    prunable_RGM = (mask_RI & (gain_RI < 0)).reshape(len(mask_RI), -1, size)
    partner_RI = prunable_RGM.any(2, keepdim=True).expand_as(prunable_RGM).flatten(1)
    growable_RI = ~mask_RI & (gain_RI > 0) & partner_RI
    grown_R = worth_RI.masked_fill(~growable_RI, -torch.inf).argmax(1)
    group_R = (torch.arange(len(grown_R), device=grown_R.device), grown_R // size)
    costs_RM = cost_RI.reshape(prunable_RGM.shape)[group_R].masked_fill(~prunable_RGM[group_R], torch.inf)
    return grown_R, group_R[1] * size + costs_RM.argmin(1), growable_RI.any(1)
