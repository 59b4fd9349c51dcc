import importlib

import pytest
import torch
from torch import Tensor

from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.prune.admm import gradual_mask
from vlmc.toolchain.prune.hessian import DAMPING, inverse_factor
from vlmc.toolchain.prune.refit import refit
from vlmc.toolchain.prune.sparsegpt import chooser
from vlmc.toolchain.prune.statistics import Need, Statistics

PATTERNS = ["2:4", "4:8", "1:4", "3:4", "50%", "70%"]


def layer(rows: int = 24, columns: int = 64, seed: int = 0) -> tuple[Tensor, Tensor, Statistics]:
    """A weight, correlated inputs of very different sizes, and their statistics."""
    draw = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(rows, columns, generator=draw)
    mixing_II = torch.randn(columns, columns, generator=draw) * torch.logspace(-1, 1, columns)
    x_LI = torch.randn(400, columns, generator=draw) @ mixing_II / columns**0.5
    statistics = Statistics(columns, Need.HESSIAN, torch.device("cpu"))
    for chunk in x_LI.split(100):
        statistics.add(chunk, "layer")
    return weight_OI, x_LI, statistics


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("name", PRUNERS)
def test_result_holds_the_pattern_and_fits_its_mask(name: str, text: str) -> None:
    weight_OI, _, statistics = layer()
    pattern, before = SparsityPattern.parse(text), weight_OI.clone()
    pruned_OI, mask_OI = PRUNERS[name].prune(weight_OI, statistics, pattern)
    assert pattern.holds(pruned_OI)
    assert torch.equal(pruned_OI != 0, mask_OI)
    assert (~mask_OI).sum(1).tolist() == [pattern.zeros(64)] * 24
    assert not torch.signbit(pruned_OI[~mask_OI]).any(), "a pruned weight must be +0.0"
    assert torch.equal(weight_OI, before), "a pruner leaves its input alone"


@pytest.mark.parametrize("text", ["2:4", "50%"])
def test_wanda_is_the_papers_formula(text: str) -> None:
    weight_OI, x_LI, statistics = layer()
    _, mask_OI = PRUNERS["wanda"].prune(weight_OI, statistics, SparsityPattern.parse(text))
    scores_OI = weight_OI.abs() * x_LI.norm(dim=0)
    groups = scores_OI.reshape(24, -1, 4) if text == "2:4" else scores_OI[:, None]
    kth = groups.kthvalue(groups.shape[-1] // 2, dim=-1, keepdim=True).values
    assert torch.equal(mask_OI.reshape(groups.shape), groups > kth)


def obs_reference(weight_OI: Tensor, hessian_II: Tensor, group: int, keep: int) -> Tensor:
    """SparseGPT by the paper's equation 5, the inverse of what remains made anew for every column, in float64."""
    weight_OI, hessian_II = weight_OI.double().clone(), hessian_II.double()
    hessian_II = hessian_II + DAMPING * hessian_II.diagonal().mean() * torch.eye(len(hessian_II))
    mask_OI = torch.ones_like(weight_OI, dtype=torch.bool)
    for column in range(weight_OI.shape[1]):
        inverse = torch.linalg.inv(hessian_II[column:, column:])
        if column % group == 0:
            pivots = torch.stack([torch.linalg.inv(hessian_II[j:, j:])[0, 0] for j in range(column, column + group)])
            scores = weight_OI[:, column : column + group].square() / pivots
            kept = scores.topk(keep, dim=1).indices
            mask_OI[:, column : column + group] = torch.zeros_like(scores, dtype=torch.bool).scatter(1, kept, True)
        error_O = torch.where(mask_OI[:, column], 0.0, weight_OI[:, column]) / inverse[0, 0]
        weight_OI[:, column:] -= error_O[:, None] * inverse[0][None]
    return weight_OI * mask_OI


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2)])
def test_sparsegpt_is_the_papers_update(n: int, m: int) -> None:
    weight_OI, _, statistics = layer(rows=8, columns=32)
    assert statistics.hessian_II is not None
    pruned_OI, _ = PRUNERS["sparsegpt"].prune(weight_OI, statistics, SparsityPattern(n=n, m=m))
    expected_OI = obs_reference(weight_OI, statistics.hessian_II, m, n)
    torch.testing.assert_close(pruned_OI.double(), expected_OI, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("text", "size", "smaller"), [("2:4", "BLOCK", 16), ("50%", "GROUP", 3)])
def test_sparsegpt_crosses_borders_without_a_seam(
    text: str, size: str, smaller: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight_OI, _, statistics = layer(columns=64)
    whole, _ = PRUNERS["sparsegpt"].prune(weight_OI, statistics, SparsityPattern.parse(text))
    monkeypatch.setattr(importlib.import_module("vlmc.toolchain.prune.sparsegpt"), size, smaller)
    parted, _ = PRUNERS["sparsegpt"].prune(weight_OI, statistics, SparsityPattern.parse(text))
    torch.testing.assert_close(whole, parted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("text", ["1:2", "2:4", "3:4", "4:8", "5:16"])
def test_a_group_is_masked_as_by_the_pattern(text: str) -> None:
    pattern = SparsityPattern.parse(text)
    scores_GO = torch.randint(0, 4, (pattern.m or 0, 500), generator=torch.Generator().manual_seed(0)).float()
    scores_GO[torch.rand(scores_GO.shape, generator=torch.Generator().manual_seed(1)) < 0.1] = torch.nan
    choose = chooser(pattern, torch.device("cpu"))
    assert choose is not None
    assert torch.equal(choose(scores_GO), pattern.mask(scores_GO.T).T)


@pytest.mark.parametrize("text", ["2:4", "50%"])
def test_admm_is_the_papers_iteration(text: str) -> None:
    weight_OI, _, statistics = layer()
    assert statistics.hessian_II is not None
    hessian_II = statistics.hessian_II.double()
    scale_I = hessian_II.diagonal().sqrt()
    normal_II = hessian_II / torch.outer(scale_I, scale_I) + 0.1 * torch.eye(64)  # the normalised diagonal's mean is 1
    target_IO = (weight_OI.double() * scale_I).T
    v_IO, u_IO = target_IO.clone(), torch.zeros_like(target_IO)
    for step in range(1, 21):
        if step <= 15:
            mask_IO = gradual_mask((v_IO + u_IO).T.abs(), SparsityPattern.parse(text), step / 15).T
        z_IO = mask_IO * (v_IO + u_IO)
        u_IO = u_IO + v_IO - z_IO
        v_IO = torch.linalg.solve(normal_II + torch.eye(64), normal_II @ target_IO + z_IO - u_IO)
    pruned_OI, mask_OI = PRUNERS["admm"].prune(weight_OI, statistics, SparsityPattern.parse(text))
    assert torch.equal(mask_OI, mask_IO.T)
    torch.testing.assert_close(pruned_OI.double(), z_IO.T / scale_I, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("text", ["2:4", "50%"])
def test_better_methods_lose_less_of_the_output(text: str) -> None:
    weight_OI, x_LI, statistics = layer(rows=64)

    def error(name: str) -> float:
        pruned_OI, _ = PRUNERS[name].prune(weight_OI, statistics, SparsityPattern.parse(text))
        return float((x_LI @ (pruned_OI - weight_OI).T).norm() / (x_LI @ weight_OI.T).norm())

    assert error("admm") < error("sparsegpt") < error("wanda") < error("magnitude")


@pytest.mark.parametrize("name", PRUNERS)
def test_refit_finds_the_least_squares_for_the_mask(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight_OI, x_LI, statistics = layer(columns=32)
    pruned_OI, mask_OI = PRUNERS[name].prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    monkeypatch.setattr(importlib.import_module("vlmc.toolchain.prune.refit"), "ITERATIONS", 200)
    found_OI = refit(weight_OI, pruned_OI, mask_OI, statistics)
    for row in range(4):
        keep = mask_OI[row]
        expected = torch.linalg.lstsq(x_LI[:, keep].double(), (x_LI @ weight_OI[row]).double()).solution
        torch.testing.assert_close(found_OI[row, keep].double(), expected, rtol=2e-2, atol=2e-3)
    assert (found_OI[~mask_OI] == 0).all()


@pytest.mark.parametrize("name", PRUNERS)
def test_ten_steps_of_refit_never_make_a_row_worse(name: str) -> None:
    weight_OI, x_LI, statistics = layer(rows=64)
    pruned_OI, mask_OI = PRUNERS[name].prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    found_OI = refit(weight_OI, pruned_OI, mask_OI, statistics)
    before, after = ((x_LI @ (one - weight_OI).T).norm(dim=0) for one in (pruned_OI, found_OI))
    assert (after <= before * 1.001).all()
    assert after.norm() < before.norm()


@pytest.mark.parametrize("text", ["2:4", "50%"])
def test_the_gradual_mask_follows_its_schedule(text: str) -> None:
    pattern, scores_OI = SparsityPattern.parse(text), torch.rand(8, 64, generator=torch.Generator().manual_seed(0))
    final_OI = pattern.mask(scores_OI)
    for step in range(1, 16):
        mask_OI = gradual_mask(scores_OI, pattern, step / 15)
        assert (mask_OI | ~final_OI).all(), "what the final mask keeps is always kept"
        expected = 0.5 - 0.5 * (1 - step / 15) ** 3
        assert 1 - mask_OI.float().mean() == pytest.approx(expected, abs=2e-3)
    assert torch.equal(mask_OI, final_OI)


@pytest.mark.parametrize("name", PRUNERS)
def test_dead_inputs_stop_no_pruner(name: str) -> None:
    weight_OI, x_LI, _ = layer()
    x_LI[:, ::3] = 0
    statistics = Statistics(64, Need.HESSIAN, torch.device("cpu"))
    statistics.add(x_LI, "layer")
    pruned_OI, mask_OI = PRUNERS[name].prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
    assert torch.isfinite(pruned_OI).all()
    assert torch.isfinite(refit(weight_OI, pruned_OI, mask_OI, statistics)).all()


def test_damping_grows_until_the_factor_exists() -> None:
    indefinite = torch.eye(8)
    indefinite[0, 0] = -0.05
    factor, raised = inverse_factor(indefinite)
    assert torch.isfinite(factor).all()
    assert raised == pytest.approx(0.1), "0.01 of the mean, 0.869, leaves -0.041; 0.1 does not"
    assert inverse_factor(torch.eye(8))[1] is None
    with pytest.raises(CheckFailed, match="cannot be factored"):
        inverse_factor(torch.full((4, 4), float("nan")))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_inputs_name_the_layer(bad: float) -> None:
    statistics = Statistics(4, Need.DIAGONAL, torch.device("cpu"))
    with pytest.raises(InputError, match=r"blocks\.3\.fc1"):
        statistics.add(torch.tensor([[1.0, bad, 0, 0]]), "blocks.3.fc1")


@pytest.mark.parametrize(("name", "smallest", "raised"), [("sparsegpt", -0.05, 0.1), ("admm", -2.0, 10.0)])
def test_a_raised_damping_is_noted(name: str, smallest: float, raised: float) -> None:
    statistics = Statistics(8, Need.HESSIAN, torch.device("cpu"))
    hessian_II = torch.eye(8)
    direction_I = torch.full((8,), 8**-0.5)
    statistics.hessian_II = hessian_II + (smallest - 1) * direction_I[:, None] * direction_I  # one eigenvalue below zero
    pruned_OI, _ = PRUNERS[name].prune(torch.randn(4, 8), statistics, SparsityPattern(n=2, m=4))
    assert statistics.raised_damping == pytest.approx(raised)
    assert torch.isfinite(pruned_OI).all()
    _, _, healthy = layer()
    PRUNERS[name].prune(torch.randn(4, 64), healthy, SparsityPattern(n=2, m=4))
    assert healthy.raised_damping is None
