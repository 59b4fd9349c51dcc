"""Damping grows as far as it must, and is noted."""

import pytest
import torch

from tests.prune.material import layer
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.prune.methods.hessian import inverse_factor


def test_damping_grows_until_the_factor_exists() -> None:
    indefinite = torch.eye(8)
    indefinite[0, 0] = -0.05
    factor, raised = inverse_factor(indefinite)
    assert torch.isfinite(factor).all()
    assert raised == pytest.approx(0.1), "0.01 of the mean, 0.869, leaves -0.041; 0.1 does not"
    assert inverse_factor(torch.eye(8))[1] is None
    with pytest.raises(CheckFailed, match="cannot be factored"):
        inverse_factor(torch.full((4, 4), float("nan")))


@pytest.mark.parametrize(("name", "smallest", "raised"), [("sparsegpt", -0.05, 0.1), ("admm", -2.0, 10.0)])
def test_a_raised_damping_is_noted(name: str, smallest: float, raised: float) -> None:
    statistics = Statistics(8, Need.HESSIAN, torch.device("cpu"))
    hessian_II = torch.eye(8)
    direction_I = torch.full((8,), 8**-0.5)
    statistics.hessian_II = hessian_II + (smallest - 1) * direction_I[:, None] * direction_I  # one eigenvalue below zero
    pruned_OI, _, damping = PRUNERS[name].prune(torch.randn(4, 8), statistics, SparsityPattern(n=2, m=4))
    assert damping == pytest.approx(raised)
    assert torch.isfinite(pruned_OI).all()
    _, _, healthy = layer()
    assert PRUNERS[name].prune(torch.randn(4, 64), healthy, SparsityPattern(n=2, m=4)).raised_damping is None
