"""Refit: the best weights for a given mask, by preconditioned conjugate gradient (ALPS, NeurIPS 2024, algorithm 2).

Shapes: O out features, I in features. For every row, minimise (w' - w) H (w' - w)^T over the weights that the mask keeps.
"""

import torch
from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.prune.methods.base import Found, Pruner

ITERATIONS = 10


def with_refit(pruner: Pruner) -> Pruner:
    """Return the pruner followed by a least-squares refit of the weights that its mask keeps."""

    def prune(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> Found:
        found = pruner.prune(weight_OI, statistics, pattern)
        return found._replace(weight_OI=refit(weight_OI, found.weight_OI, found.mask_OI, statistics))

    return Pruner(f"{pruner.name}+refit", prune, Need.HESSIAN, pruner.url, moves=True)


def refit(dense_OI: Tensor, pruned_OI: Tensor, mask_OI: Tensor, statistics: Statistics) -> Tensor:
    """Return refitted weights (O, I) for the boolean keep-mask (O, I), starting from `pruned_OI`.

    All rows are solved side by side; the diagonal of H is the preconditioner. A row whose output error did not fall keeps
    its weights.
    """
    assert statistics.hessian_II is not None
    hessian_II, keep_OI = statistics.hessian_II, mask_OI.to(dense_OI.dtype)
    inverse_I = 1 / hessian_II.diagonal().clamp_min(hessian_II.diagonal().mean() * 1e-6)
    found_OI = pruned_OI.clone()
    residual_OI = keep_OI * ((dense_OI - found_OI) @ hessian_II)
    direction_OI = conditioned_OI = residual_OI * inverse_I
    energy_O = (residual_OI * conditioned_OI).sum(1, keepdim=True)
    for _ in range(ITERATIONS):
        projected_OI = keep_OI * (direction_OI @ hessian_II)
        step_O = _ratio(energy_O, (direction_OI * projected_OI).sum(1, keepdim=True))
        found_OI = found_OI + step_O * direction_OI
        residual_OI = residual_OI - step_O * projected_OI
        conditioned_OI = residual_OI * inverse_I
        previous_O, energy_O = energy_O, (residual_OI * conditioned_OI).sum(1, keepdim=True)
        direction_OI = conditioned_OI + _ratio(energy_O, previous_O) * direction_OI
    better_O = _error(dense_OI, found_OI, hessian_II) < _error(dense_OI, pruned_OI, hessian_II)
    return torch.where(better_O, found_OI, pruned_OI).masked_fill(~mask_OI, 0.0)


def _error(dense_OI: Tensor, found_OI: Tensor, hessian_II: Tensor) -> Tensor:
    change_OI = found_OI - dense_OI
    return (change_OI @ hessian_II * change_OI).sum(1, keepdim=True)


def _ratio(numerator_O: Tensor, denominator_O: Tensor) -> Tensor:
    """Divide; 0 / 0, of a row that is solved already, is 0."""
    return torch.where(denominator_O > 0, numerator_O / denominator_O.clamp_min(1e-30), 0.0)
