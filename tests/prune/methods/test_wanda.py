"""Wanda's mask by the paper's formula."""

import pytest
import torch

from tests.prune.material import layer
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.prune import PRUNERS


@pytest.mark.parametrize("text", ["2:4", "50%"])
def test_wanda_is_the_papers_formula(text: str) -> None:
    weight_OI, x_LI, statistics = layer()
    _, mask_OI, _ = PRUNERS["wanda"].prune(weight_OI, statistics, SparsityPattern.parse(text))
    scores_OI = weight_OI.abs() * x_LI.norm(dim=0)
    groups = scores_OI.reshape(24, -1, 4) if text == "2:4" else scores_OI[:, None]
    kth = groups.kthvalue(groups.shape[-1] // 2, dim=-1, keepdim=True).values
    assert torch.equal(mask_OI.reshape(groups.shape), groups > kth)
