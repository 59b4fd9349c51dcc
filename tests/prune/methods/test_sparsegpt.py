"""SparseGPT against the paper's update in float64, and its blocks and groups."""

import pytest
import torch
from torch import Tensor

from tests.prune.material import layer
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.prune.methods import sparsegpt
from vlmc.toolchain.prune.methods.hessian import DAMPING
from vlmc.toolchain.prune.methods.sparsegpt import chooser


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
    pruned_OI, _, _ = PRUNERS["sparsegpt"].prune(weight_OI, statistics, SparsityPattern(n=n, m=m))
    expected_OI = obs_reference(weight_OI, statistics.hessian_II, m, n)
    torch.testing.assert_close(pruned_OI.double(), expected_OI, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("text", "size", "smaller"), [("2:4", "BLOCK", 16), ("50%", "GROUP", 3)])
def test_sparsegpt_crosses_borders_without_a_seam(
    text: str, size: str, smaller: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight_OI, _, statistics = layer(columns=64)
    whole, _, _ = PRUNERS["sparsegpt"].prune(weight_OI, statistics, SparsityPattern.parse(text))
    monkeypatch.setattr(sparsegpt, size, smaller)
    parted, _, _ = PRUNERS["sparsegpt"].prune(weight_OI, statistics, SparsityPattern.parse(text))
    torch.testing.assert_close(whole, parted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("text", ["1:2", "2:4", "3:4", "4:8", "5:16"])
def test_a_group_is_masked_as_by_the_pattern(text: str) -> None:
    pattern = SparsityPattern.parse(text)
    scores_GO = torch.randint(0, 4, (pattern.m or 0, 500), generator=torch.Generator().manual_seed(0)).float()
    scores_GO[torch.rand(scores_GO.shape, generator=torch.Generator().manual_seed(1)) < 0.1] = torch.nan
    choose = chooser(pattern, torch.device("cpu"))
    assert choose is not None
    assert torch.equal(choose(scores_GO), pattern.mask(scores_GO.T).T)
