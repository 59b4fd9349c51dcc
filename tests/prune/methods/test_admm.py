"""ADMM against the paper's iteration in float64, and its gradual mask."""

import pytest
import torch

from tests.prune.material import layer
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.prune.methods.admm import gradual_mask


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
    pruned_OI, mask_OI, _ = PRUNERS["admm"].prune(weight_OI, statistics, SparsityPattern.parse(text))
    assert torch.equal(mask_OI, mask_IO.T)
    torch.testing.assert_close(pruned_OI.double(), (mask_IO * (v_IO + u_IO)).T / scale_I, rtol=1e-3, atol=1e-5)


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
