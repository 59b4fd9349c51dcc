"""What the pruners that use the whole Hessian share: dead inputs, damping, factors.

Shapes: O out features, I in features. A Hessian is as large as a weight or larger, and layers with one input share it. So it
is never changed, and no more copies of it live at a time than the factorisation needs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from vlmc.runtime.errors import CheckFailed
from vlmc.toolchain.calibration.statistics import Statistics

DAMPING = 0.01  # of the mean of the diagonal
_TRIES = 6


def dead_inputs(statistics: Statistics) -> Tensor:
    """Return which inputs (I) were never active."""
    assert statistics.hessian_II is not None
    return statistics.hessian_II.diagonal() == 0


def inverse_factor(hessian_II: Tensor) -> tuple[Tensor, float | None]:
    """Return U (I, I), the upper Cholesky factor of (H + damping)^-1, and the damping if it had to be raised, else None.

    Raises:
        CheckFailed: no damping up to 1e5 times the usual one helps.
    """
    for share, raised in _shares(DAMPING):
        factor_II = _inverse_factor(hessian_II, share)
        if factor_II is not None:
            return factor_II, raised
    raise CheckFailed("the Hessian cannot be factored even with strong damping: use more calibration samples")


def inverse_with(matrix_II: Tensor, ridge: float, usual: float) -> tuple[Tensor, Tensor, float | None]:
    """Return the damped matrix (I, I), the inverse (I, I) of it plus `ridge` times the identity, and the damping if raised.

    Raises:
        CheckFailed: no damping up to 1e5 times the usual one helps.
    """
    for share, raised in _shares(usual):
        damped_II = _damped(matrix_II, share)
        diagonal_I = damped_II.diagonal().clone()
        damped_II.diagonal().add_(ridge)
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        damped_II.diagonal().copy_(diagonal_I)
        if not int(failed):
            return damped_II, torch.cholesky_inverse(lower_II), raised
    raise CheckFailed("the Hessian cannot be inverted even with strong damping: use more calibration samples")


def _shares(usual: float) -> Iterator[tuple[float, float | None]]:
    """Yield the usual share of the mean diagonal, then each time ten times the last; and the share where it is raised."""
    yield usual, None
    for attempt in range(1, _TRIES):
        yield usual * 10**attempt, usual * 10**attempt


def _damped(matrix_II: Tensor, share: float) -> Tensor:
    """Return a copy (I, I) with a share of its mean diagonal added, and a one where an input was never active."""
    damped_II = matrix_II.clone()
    diagonal_I = damped_II.diagonal()
    diagonal_I.masked_fill_(diagonal_I == 0, 1.0)
    diagonal_I.add_(share * diagonal_I.mean())
    return damped_II


def _inverse_factor(hessian_II: Tensor, share: float) -> Tensor | None:
    matrix_II = _damped(hessian_II, share)
    lower_II, failed = torch.linalg.cholesky_ex(matrix_II)
    del matrix_II
    if int(failed):
        return None
    inverse_II = torch.cholesky_inverse(lower_II)
    del lower_II
    factor_II, failed = torch.linalg.cholesky_ex(inverse_II, upper=True)
    return None if int(failed) else factor_II
