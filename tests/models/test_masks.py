"""Weights under their masks, bit by bit."""

import pytest
import torch

from vlmc.toolchain.models.masks import masked


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_pruned_weights_are_plus_zero_whatever_they_were_and_the_others_keep_every_bit(dtype: torch.dtype) -> None:
    weight_OI = torch.tensor([[1.5, -0.0, -torch.inf, torch.nan], [-2.0, 3.0, -0.0, torch.inf]], dtype=dtype)
    keep_OI = torch.tensor([[True, False, False, False], [False, True, True, True]])
    found_OI = masked(weight_OI, keep_OI)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    assert torch.equal(found_OI.view(bits)[keep_OI], weight_OI.view(bits)[keep_OI])
    assert not found_OI.view(bits)[~keep_OI].any()
