"""What every pruner in the table promises."""

import pytest
import torch

from tests.prune.material import layer
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.prune.refinements.refit import refit

PATTERNS = ["2:4", "4:8", "1:4", "3:4", "50%", "70%"]


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("name", PRUNERS)
def test_result_holds_the_pattern_and_fits_its_mask(name: str, text: str) -> None:
    weight_OI, _, statistics = layer()
    pattern, before = SparsityPattern.parse(text), weight_OI.clone()
    pruned_OI, mask_OI, _ = PRUNERS[name].prune(weight_OI, statistics, pattern)
    assert pattern.holds(pruned_OI)
    assert torch.equal(pruned_OI != 0, mask_OI)
    assert (~mask_OI).sum(1).tolist() == [pattern.zeros(64)] * 24
    assert not torch.signbit(pruned_OI[~mask_OI]).any(), "a pruned weight must be +0.0"
    assert torch.equal(weight_OI, before), "a pruner leaves its input alone"


@pytest.mark.parametrize("text", ["2:4", "50%"])
def test_better_methods_lose_less_of_the_output(text: str) -> None:
    weight_OI, x_LI, statistics = layer(rows=64)

    def error(name: str) -> float:
        pruned_OI, _, _ = PRUNERS[name].prune(weight_OI, statistics, SparsityPattern.parse(text))
        return float((x_LI @ (pruned_OI - weight_OI).T).norm() / (x_LI @ weight_OI.T).norm())

    assert error("admm") < error("sparsegpt") < error("wanda") < error("magnitude")


@pytest.mark.parametrize("name", PRUNERS)
def test_dead_inputs_stop_no_pruner(name: str) -> None:
    weight_OI, x_LI, _ = layer()
    x_LI[:, ::3] = 0
    statistics = Statistics(64, Need.HESSIAN, torch.device("cpu"))
    statistics.add(x_LI, "layer")
    pruned_OI, mask_OI, _ = PRUNERS[name].prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    assert torch.isfinite(pruned_OI).all()
    assert torch.isfinite(refit(weight_OI, pruned_OI, mask_OI, statistics)).all()
