"""Refit against least squares, and what it promises."""

import pytest
import torch

from tests.prune.material import layer
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.prune.refinements import refit as refinement
from vlmc.toolchain.prune.refinements.refit import refit


@pytest.mark.parametrize("name", PRUNERS)
def test_refit_finds_the_least_squares_for_the_mask(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight_OI, x_LI, statistics = layer(columns=32)
    pruned_OI, mask_OI, _ = PRUNERS[name].prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    monkeypatch.setattr(refinement, "ITERATIONS", 200)
    found_OI = refit(weight_OI, pruned_OI, mask_OI, statistics)
    for row in range(4):
        keep = mask_OI[row]
        expected = torch.linalg.lstsq(x_LI[:, keep].double(), (x_LI @ weight_OI[row]).double()).solution
        torch.testing.assert_close(found_OI[row, keep].double(), expected, rtol=2e-2, atol=2e-3)
    assert (found_OI[~mask_OI] == 0).all()


@pytest.mark.parametrize("name", PRUNERS)
def test_ten_steps_of_refit_never_make_a_row_worse(name: str) -> None:
    weight_OI, x_LI, statistics = layer(rows=64)
    pruned_OI, mask_OI, _ = PRUNERS[name].prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    found_OI = refit(weight_OI, pruned_OI, mask_OI, statistics)
    before, after = ((x_LI @ (one - weight_OI).T).norm(dim=0) for one in (pruned_OI, found_OI))
    assert (after <= before * 1.001).all()
    assert after.norm() < before.norm()
