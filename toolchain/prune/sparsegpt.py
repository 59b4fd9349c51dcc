"""SparseGPT: prune column by column and let the weights that stay make up for it (arXiv 2301.00774, algorithm 1).

Shapes: O out features, I in features, B columns of a block, G columns of a group. Inside, weights stand transposed, so that
a column is a contiguous row, and what a column must absorb is added up group by group and block by block.
"""

import torch
from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern, keep_highest
from vlmc.toolchain.prune.hessian import dead_inputs, inverse_factor
from vlmc.toolchain.prune.statistics import Statistics

BLOCK = 128
GROUP = 8
"""Columns that are swept together where the pattern has no groups of its own."""


def sparsegpt(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> tuple[Tensor, Tensor]:
    """Return the compensated weight (O, I), zero where pruned, and its keep-mask (O, I).

    Raises:
        CheckFailed: the Hessian cannot be factored even with strong damping.
    """
    assert statistics.hessian_II is not None
    factor_II, statistics.raised_damping = inverse_factor(statistics.hessian_II)
    weight_IO = weight_OI.T.masked_fill(dead_inputs(statistics)[:, None], 0.0).contiguous()
    mask_IO = torch.ones_like(weight_IO, dtype=torch.bool)
    for start, end in _blocks(len(weight_IO), pattern):
        if pattern.m is None:
            mask_IO[start:end] = _block_mask(weight_IO, factor_II, (start, end), pattern)
        error_BO = _sweep_block(weight_IO[start:end], mask_IO[start:end], factor_II[start:end, start:end], pattern)
        weight_IO[end:].addmm_(factor_II[start:end, end:].T, error_BO, alpha=-1)
    return weight_IO.masked_fill_(~mask_IO, 0.0).T.contiguous(), mask_IO.T.contiguous()


def _blocks(columns: int, pattern: SparsityPattern) -> list[tuple[int, int]]:
    group = pattern.m or 1
    size = max(BLOCK // group, 1) * group
    return [(start, min(start + size, columns)) for start in range(0, columns, size)]


def _sweep_block(weight_BO: Tensor, mask_BO: Tensor, factor_BB: Tensor, pattern: SparsityPattern) -> Tensor:
    """Prune the columns of one block in place; return the scaled errors (B, O) that the columns behind it must absorb."""
    error_BO, size = torch.empty_like(weight_BO), pattern.m or GROUP
    for start in range(0, len(weight_BO), size):
        group, end = slice(start, start + size), start + size
        if pattern.m is not None:
            mask_BO[group] = pattern.mask(_scores(weight_BO, factor_BB, group).T).T
        error_GO = _sweep_group(weight_BO[group], mask_BO[group], factor_BB[group, group])
        weight_BO[end:].addmm_(factor_BB[group, end:].T, error_GO, alpha=-1)
        error_BO[group] = error_GO
    return error_BO


def _sweep_group(weight_GO: Tensor, mask_GO: Tensor, factor_GG: Tensor) -> Tensor:
    """Let each column of a group absorb in place what the columns before it lose; return the scaled errors (G, O)."""
    error_GO = torch.empty_like(weight_GO)
    for column, weight_O in enumerate(weight_GO):
        error_GO[column] = weight_O.masked_fill(mask_GO[column], 0.0) / factor_GG[column, column]
        weight_GO[column + 1 :].addr_(factor_GG[column, column + 1 :], error_GO[column], alpha=-1)
    return error_GO


def _scores(weight_IO: Tensor, factor_II: Tensor, columns: slice) -> Tensor:
    return weight_IO[columns].square() / factor_II.diagonal()[columns, None].square()


def _block_mask(weight_IO: Tensor, factor_II: Tensor, block: tuple[int, int], pattern: SparsityPattern) -> Tensor:
    """Unstructured: every row drops as many weights in each block as keeps the row's total exact."""
    start, end = block
    drop = pattern.zeros(end) - pattern.zeros(start)
    return torch.as_tensor(keep_highest(_scores(weight_IO, factor_II, slice(start, end)).T, end - start - drop)).T
