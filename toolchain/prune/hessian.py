"""What the pruners that use the whole Hessian share: dead inputs, damping, factors.

Shapes: O out features, I in features.
"""

from collections.abc import Iterator

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


def damped(matrix_II: Tensor, usual: float) -> Iterator[tuple[float | None, Tensor]]:
    """Yield None and the matrix (I, I) with the usual share of its mean diagonal added; then ever tenfold shares, named."""
    scale = matrix_II.diagonal().mean()
    for attempt in range(_TRIES):
        damped_II = matrix_II.clone()
        damped_II.diagonal().add_(usual * 10**attempt * scale)
        yield (usual * 10**attempt if attempt else None), damped_II


def inverse_factor(hessian_II: Tensor) -> tuple[Tensor, float | None]:
    """Return U (I, I), the upper Cholesky factor of (H + damping)^-1, and the damping where it had to be raised.

    Raises:
        CheckFailed: no damping up to 1e5 times the usual one helps.
    """
    for raised, damped_II in damped(hessian_II, DAMPING):
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        if int(failed):
            continue
        factor_II, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower_II), upper=True)
        if not int(failed):
            return torch.as_tensor(factor_II), raised
    raise CheckFailed("the Hessian cannot be factored even with strong damping: use more calibration samples")


def inverse_with(matrix_II: Tensor, ridge: float, usual: float) -> tuple[Tensor, Tensor, float | None]:
    """Return the damped matrix (I, I), the inverse (I, I) of it plus `ridge` times one, and the damping where raised.

    Raises:
        CheckFailed: no damping up to 1e5 times the usual one helps.
    """
    for raised, damped_II in damped(matrix_II, usual):
        lower_II, failed = torch.linalg.cholesky_ex(damped_II + ridge * torch.eye(len(damped_II), device=damped_II.device))
        if not int(failed):
            return damped_II, torch.cholesky_inverse(lower_II), raised
    raise CheckFailed("the Hessian cannot be inverted even with strong damping: use more calibration samples")
