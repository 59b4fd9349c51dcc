"""What the pruners that use the whole Hessian share: dead inputs, damping, factors.

Shapes: O out features, I in features.
"""

import torch
from torch import Tensor

from vlmc.runtime.errors import CheckFailed
from vlmc.toolchain.prune.statistics import Statistics

DAMPING = 0.01  # of the mean of the diagonal
_TRIES = 6


def without_dead_inputs(weight_OI: Tensor, statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Return copies of the weight (O, I) and the Hessian (I, I): zero and one where an input was never active."""
    assert statistics.hessian_II is not None
    weight_OI, hessian_II = weight_OI.clone(), statistics.hessian_II.clone()
    dead_I = hessian_II.diagonal() == 0
    hessian_II.diagonal()[dead_I] = 1.0
    weight_OI[:, dead_I] = 0.0
    return weight_OI, hessian_II


def inverse_factor(hessian_II: Tensor) -> Tensor:
    """Return U (I, I), the upper Cholesky factor of (H + damping)^-1; damping grows tenfold when a factoring fails.

    Raises:
        CheckFailed: no damping up to 1e5 times the usual one helps.
    """
    scale = hessian_II.diagonal().mean()
    for attempt in range(_TRIES):
        damped_II = hessian_II.clone()
        damped_II.diagonal().add_(DAMPING * 10**attempt * scale)
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        if int(failed):
            continue
        factor_II, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower_II), upper=True)
        if not int(failed):
            return torch.as_tensor(factor_II)
    raise CheckFailed("the Hessian cannot be factored even with strong damping: use more calibration samples")


def inverse_of(matrix_II: Tensor) -> Tensor:
    """Return the inverse of a symmetric positive definite matrix (I, I).

    Raises:
        CheckFailed: it is not positive definite.
    """
    lower_II, failed = torch.linalg.cholesky_ex(matrix_II)
    if int(failed):
        raise CheckFailed("the Hessian cannot be inverted: use more calibration samples")
    return torch.cholesky_inverse(lower_II)
