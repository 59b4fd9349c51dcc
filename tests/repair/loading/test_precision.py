"""Frozen weights in half precision: only where they are stored so."""

import torch
from torch import nn

from vlmc.toolchain.repair.loading.precision import narrow

STORED = {
    "0.weight": torch.bfloat16,
    "1.weight": torch.float32,
    "2.weight": torch.bfloat16,
    "2.bias": torch.bfloat16,
    "3.weight": torch.bfloat16,
}


def model() -> nn.Sequential:
    """Return two Linear layers, a norm, and a Linear that shares an embedding's weight."""
    made = nn.Sequential(nn.Linear(4, 4, False), nn.Linear(4, 4, False), nn.LayerNorm(4), nn.Linear(4, 4, False))
    made.append(nn.Embedding(4, 4))
    made[4].weight = made[3].weight
    return made


def test_a_model_of_one_type_is_narrowed_whole() -> None:
    found = narrow(model(), dict.fromkeys(STORED, torch.bfloat16), "bf16")
    assert {one.dtype for one in found.parameters()} == {torch.bfloat16}


def test_of_a_model_of_mixed_types_only_linear_layers_of_that_type_are() -> None:
    found = narrow(model(), STORED, "bf16")
    types = {name: one.dtype for name, one in found.named_parameters() if one.dtype != torch.float32}
    assert types == {"0.weight": torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        assert found[:4](torch.ones(2, 4)).shape == (2, 4)


def test_other_products_leave_it_as_it_is() -> None:
    for precision in ("fp32", "fp16"):
        assert {one.dtype for one in narrow(model(), STORED, precision).parameters()} == {torch.float32}
