"""DSnoT against a plain loop over rows in float64, and what it promises."""

import pytest
import torch
from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.prune import PRUNERS, Pruner
from vlmc.toolchain.prune.refinements import dsnot as refinement
from vlmc.toolchain.prune.refinements.dsnot import dsnot, with_dsnot
from vlmc.toolchain.prune.refinements.refit import with_refit

PATTERNS = ["2:4", "4:8", "1:4", "50%", "70%"]
MASKERS = [name for name, pruner in PRUNERS.items() if not pruner.moves]


def layer(seed: int = 0, tokens: int = 300) -> tuple[Tensor, Tensor, Statistics]:
    """A weight, inputs with means and variances of many sizes, and their statistics."""
    draw = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(40, 64, generator=draw)
    mean_I = torch.randn(64, generator=draw)
    x_LI = mean_I + torch.randn(tokens, 64, generator=draw) * torch.logspace(-1, 0.5, 64)
    statistics = Statistics(64, Need.DIAGONAL, torch.device("cpu"))
    for chunk in x_LI.split(100):
        statistics.add(chunk, "layer")
    return weight_OI, x_LI, statistics


def settled(weights: list[float], keep: list[bool], x_LI: Tensor, size: int) -> list[bool]:
    """One row by the paper's words, from the tokens themselves."""
    means, variances = x_LI.mean(0).tolist(), x_LI.var(0, correction=0).tolist()
    effects = [weight * mean for weight, mean in zip(weights, means, strict=True)]
    costs = [abs(weight) * norm for weight, norm in zip(weights, x_LI.norm(dim=0).tolist(), strict=True)]
    columns, keep = range(len(weights)), list(keep)
    for _ in range(50):
        error = sum(effects[j] for j in columns if not keep[j])
        gains = [effect if error > 0 else -effect for effect in effects]
        partners = {
            j: [i for i in columns if i // size == j // size and keep[i] and gains[i] < 0]
            for j in columns
            if not keep[j] and gains[j] > 0
        }
        able = [j for j in partners if partners[j]]
        if abs(error) <= 0.1 or not able:
            break
        grown = max(able, key=lambda j: gains[j] / variances[j])
        pruned = min(partners[grown], key=lambda j: costs[j])
        if abs(error - effects[grown] + effects[pruned]) >= abs(error):
            break
        keep[grown], keep[pruned] = True, False
    return keep


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("name", MASKERS)
def test_swaps_are_the_papers(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "ROWS", 16)  # three pieces, the last one short
    weight_OI, x_LI, statistics = layer()
    pattern = SparsityPattern.parse(text)
    _, mask_OI, _ = PRUNERS[name].prune(weight_OI, statistics, pattern)
    _, new_OI = dsnot(weight_OI, mask_OI, statistics, pattern)
    rows = zip(weight_OI.tolist(), mask_OI.tolist(), strict=True)
    assert new_OI.tolist() == [settled(weights, keep, x_LI.double(), pattern.m or 64) for weights, keep in rows]
    assert not torch.equal(new_OI, mask_OI)


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("name", MASKERS)
def test_the_pattern_holds_and_the_expected_error_falls(name: str, text: str) -> None:
    weight_OI, x_LI, statistics = layer()
    pattern, before_OI = SparsityPattern.parse(text), weight_OI.clone()
    pruned_OI, mask_OI, _ = PRUNERS[name].prune(weight_OI, statistics, pattern)
    swapped_OI, new_OI, _ = with_dsnot(PRUNERS[name]).prune(weight_OI, statistics, pattern)
    assert pattern.holds(swapped_OI)
    size = pattern.m or 64
    assert torch.equal(*(one.reshape(40, -1, size).sum(-1) for one in (mask_OI, new_OI))), "every group keeps as many"
    assert torch.equal(swapped_OI, weight_OI * new_OI), "no weight that stays is changed"
    assert not torch.signbit(swapped_OI[~new_OI]).any(), "a pruned weight must be +0.0"
    assert torch.equal(weight_OI, before_OI)
    before_O, after_O = ((x_LI @ (weight_OI - one).T).mean(0).abs() for one in (pruned_OI, swapped_OI))
    assert (after_O <= before_O + 1e-4).all()
    assert after_O.mean() < 0.5 * before_O.mean()


def test_a_row_whose_mean_is_right_is_left_alone() -> None:
    weight_OI, x_LI, _ = layer()
    statistics = Statistics(64, Need.DIAGONAL, torch.device("cpu"))
    statistics.add(x_LI - x_LI.mean(0), "layer")
    mask_OI = SparsityPattern(n=2, m=4).mask(weight_OI.abs())
    assert torch.equal(dsnot(weight_OI, mask_OI, statistics, SparsityPattern(n=2, m=4))[1], mask_OI)


def test_dead_and_constant_inputs_stop_nothing() -> None:
    weight_OI, x_LI, _ = layer()
    x_LI[:, ::3], x_LI[:, 1::3] = 0, 1
    statistics = Statistics(64, Need.DIAGONAL, torch.device("cpu"))
    statistics.add(x_LI, "layer")
    swapped_OI, mask_OI, _ = with_dsnot(PRUNERS["wanda"]).prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    assert (mask_OI.sum(1) == 32).all()
    assert torch.isfinite(swapped_OI).all()


@pytest.mark.parametrize("name", PRUNERS)
def test_the_table_says_which_pruners_move_weights(name: str) -> None:
    weight_OI, x_LI, _ = layer()
    statistics = Statistics(64, Need.HESSIAN, torch.device("cpu"))
    statistics.add(x_LI, "layer")
    pruned_OI, mask_OI, _ = PRUNERS[name].prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    assert PRUNERS[name].moves != torch.equal(pruned_OI, weight_OI * mask_OI)


@pytest.mark.parametrize(
    "pruner", [PRUNERS["sparsegpt"], PRUNERS["admm"], with_refit(PRUNERS["wanda"])], ids=lambda one: one.name
)
def test_moved_weights_cannot_be_swapped(pruner: Pruner) -> None:
    with pytest.raises(InputError, match="--dsnot changes masks"):
        with_dsnot(pruner)


def test_a_refit_may_follow() -> None:
    weight_OI, x_LI, _ = layer()
    statistics = Statistics(64, Need.HESSIAN, torch.device("cpu"))
    statistics.add(x_LI, "layer")
    pruner = with_refit(with_dsnot(PRUNERS["magnitude"]))
    assert (pruner.name, pruner.need) == ("magnitude+dsnot+refit", Need.HESSIAN)
    pruned_OI, mask_OI, _ = pruner.prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    _, swapped_OI, _ = with_dsnot(PRUNERS["magnitude"]).prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    assert torch.equal(mask_OI, swapped_OI)
    assert not torch.equal(pruned_OI, weight_OI * mask_OI)
