"""SparseGPT: prune column by column and let the kept weights make up for it (arXiv 2301.00774, algorithm 1).

Shapes: O out features, I in features, B columns of a block, G columns of a group, P pairs of them. Inside, weights are
transposed, so that a column is a contiguous row; what a column must absorb is added up group by group and block by block.
"""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern, keep_highest
from vlmc.toolchain.calibration.statistics import Statistics
from vlmc.toolchain.prune.methods.base import Found
from vlmc.toolchain.prune.methods.hessian import dead_inputs, inverse_factor

BLOCK = 128
GROUP = 8
"""Columns that are pruned together where the pattern has no groups of its own."""

Choose = Callable[[Tensor], Tensor]


def sparsegpt(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> Found:
    """Prune column by column; the kept weights of later columns compensate.

    Raises:
        CheckFailed: the Hessian cannot be factored even with strong damping.
    """
    factor_II, raised = statistics.of_hessian(inverse_factor)
    weight_IO = weight_OI.T.masked_fill(dead_inputs(statistics)[:, None], 0.0).contiguous()
    mask_IO = torch.ones_like(weight_IO, dtype=torch.bool)
    choose, size = chooser(pattern, weight_IO.device), pattern.m or GROUP
    for start, end in _blocks(len(weight_IO), pattern):
        block = slice(start, end)
        if pattern.m is None:
            mask_IO[block] = _block_mask(weight_IO, factor_II, (start, end), pattern)
        error_BO = _prune_block(weight_IO[block], mask_IO[block], factor_II[block, block], choose, size)
        weight_IO[end:].addmm_(factor_II[block, end:].T, error_BO, alpha=-1)
    return Found(weight_IO.masked_fill_(~mask_IO, 0.0).T.contiguous(), mask_IO.T.contiguous(), raised)


def _blocks(columns: int, pattern: SparsityPattern) -> list[tuple[int, int]]:
    group = pattern.m or 1
    size = max(BLOCK // group, 1) * group
    return [(start, min(start + size, columns)) for start in range(0, columns, size)]


def chooser(pattern: SparsityPattern, device: torch.device) -> Choose | None:
    """Return what gives the mask (G, O) of a group's scores (G, O), equal to the pattern's; None where it has no groups.

    One matrix product counts for every column how many others score higher: for a single group that is faster than the
    pattern's own way, which suits whole weights.
    """
    if pattern.m is None or pattern.n is None:
        return None
    count, (first_P, second_P) = pattern.n, torch.tensor([*combinations(range(pattern.m), 2)], device=device).T
    places_P = torch.arange(len(first_P), device=device)
    lost_GP = torch.zeros(pattern.m, len(first_P), device=device)
    lost_GP[second_P, places_P], lost_GP[first_P, places_P] = 1.0, -1.0
    later_G1 = torch.arange(pattern.m - 1.0, -1.0, -1.0, device=device)[:, None]

    def choose(scores_GO: Tensor) -> Tensor:
        second_PO = scores_GO[second_P]
        ahead_PO = (scores_GO[first_P] >= second_PO) | second_PO.isnan()
        return torch.addmm(later_G1, lost_GP, ahead_PO.to(lost_GP)) < count

    return choose


def _prune_block(weight_BO: Tensor, mask_BO: Tensor, factor_BB: Tensor, choose: Choose | None, size: int) -> Tensor:
    """Prune the columns of one block in place; return the scaled errors (B, O) that the columns after it must absorb."""
    error_BO = torch.empty_like(weight_BO)
    for start in range(0, len(weight_BO), size):
        group, end = slice(start, start + size), start + size
        if choose is not None:
            mask_BO[group] = choose(_scores(weight_BO, factor_BB, group))
        _compensate(weight_BO[group], mask_BO[group], factor_BB[group, group], error_BO[group])
        weight_BO[end:].addmm_(factor_BB[group, end:].T, error_BO[group], alpha=-1)
    return error_BO


def _compensate(weight_GO: Tensor, mask_GO: Tensor, factor_GG: Tensor, error_GO: Tensor) -> None:
    """Let each column of a group absorb in place what the columns before it lose; fill in the scaled errors (G, O)."""
    share_GO = ~mask_GO / factor_GG.diagonal()[:, None]
    for column, (weight_O, share_O, error_O) in enumerate(zip(weight_GO, share_GO, error_GO, strict=True)):
        torch.mul(weight_O, share_O, out=error_O)
        weight_GO[column + 1 :].addr_(factor_GG[column, column + 1 :], error_O, alpha=-1)


def _scores(weight_IO: Tensor, factor_II: Tensor, columns: slice) -> Tensor:
    return weight_IO[columns].square() / factor_II.diagonal()[columns, None].square()


def _block_mask(weight_IO: Tensor, factor_II: Tensor, block: tuple[int, int], pattern: SparsityPattern) -> Tensor:
    """Unstructured: every row drops as many weights in each block as keeps the row's total exact."""
    start, end = block
    drop = pattern.zeros(end) - pattern.zeros(start)
    return torch.as_tensor(keep_highest(_scores(weight_IO, factor_II, slice(start, end)).T, end - start - drop)).T
