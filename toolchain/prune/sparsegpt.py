"""SparseGPT: prune column by column and let the weights that stay make up for it (arXiv 2301.00774, algorithm 1).

Shapes: O out features, I in features, B columns of a block, M columns of a group.
"""

import torch
from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern, keep_highest
from vlmc.toolchain.prune.hessian import inverse_factor, without_dead_inputs
from vlmc.toolchain.prune.statistics import Statistics

BLOCK = 128


def sparsegpt(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> tuple[Tensor, Tensor]:
    """Return the compensated weight (O, I), zero where pruned, and its keep-mask (O, I).

    Raises:
        CheckFailed: the Hessian cannot be factored even with strong damping.
    """
    weight_OI, hessian_II = without_dead_inputs(weight_OI, statistics)
    factor_II, statistics.raised_damping = inverse_factor(hessian_II)
    mask_OI = torch.ones_like(weight_OI, dtype=torch.bool)
    for start, end in _blocks(weight_OI.shape[1], pattern):
        error_OB = _sweep_block(weight_OI, mask_OI, factor_II, (start, end), pattern)
        weight_OI[:, end:] -= error_OB @ factor_II[start:end, end:]
    return weight_OI.masked_fill(~mask_OI, 0.0), mask_OI


def _blocks(columns: int, pattern: SparsityPattern) -> list[tuple[int, int]]:
    group = pattern.m or 1
    size = max(BLOCK // group, 1) * group
    return [(start, min(start + size, columns)) for start in range(0, columns, size)]


def _sweep_block(
    weight_OI: Tensor, mask_OI: Tensor, factor_II: Tensor, block: tuple[int, int], pattern: SparsityPattern
) -> Tensor:
    """Prune the columns of one block in place; return the scaled errors (O, B) that the columns behind it must absorb."""
    start, end = block
    error_OB = torch.zeros_like(weight_OI[:, start:end])
    if pattern.m is None:
        mask_OI[:, start:end] = _block_mask(weight_OI, factor_II, block, pattern)
    for column in range(start, end):
        if pattern.m is not None and (column - start) % pattern.m == 0:
            group = slice(column, column + pattern.m)
            mask_OI[:, group] = pattern.mask(_scores(weight_OI, factor_II, group))
        kept_O = weight_OI[:, column].masked_fill(~mask_OI[:, column], 0.0)
        error_O = (weight_OI[:, column] - kept_O) / factor_II[column, column]
        weight_OI[:, column:end] -= error_O[:, None] * factor_II[column, column:end][None]
        error_OB[:, column - start] = error_O
    return error_OB


def _scores(weight_OI: Tensor, factor_II: Tensor, columns: slice) -> Tensor:
    return weight_OI[:, columns].square() / factor_II.diagonal()[columns].square()


def _block_mask(weight_OI: Tensor, factor_II: Tensor, block: tuple[int, int], pattern: SparsityPattern) -> Tensor:
    """Unstructured: every row drops as many weights in each block as keeps the row's total exact."""
    start, end = block
    drop = pattern.zeros(end) - pattern.zeros(start)
    return torch.as_tensor(keep_highest(_scores(weight_OI, factor_II, slice(start, end)), end - start - drop))
