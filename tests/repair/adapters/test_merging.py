"""Merging: the values, their zeros, and what must never be merged."""

import pytest
import torch
from torch import nn

from vlmc.runtime.artifact import Layer, Part
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.repair.adapters import Adapters, attach
from vlmc.toolchain.repair.adapters.merging import check_finite, check_mask, merged_weight
from vlmc.toolchain.repair.methods import AdapterSpec, LoRA, SparseLoRA

LAYER = Layer(tensor="0.weight", pattern="2:4", part=Part.VISION)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def adapted() -> tuple[Adapters, torch.Tensor]:
    """Return the adapters of a pruned and of a dense layer, and the pruned layer's mask."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 8))
    mask_OI = SparsityPattern.parse("2:4").mask(model[0].weight.detach().abs())
    model[0].weight.data.mul_(mask_OI)
    adapters = attach(model, {"0": AdapterSpec(SparseLoRA, 2, 6.0, mask_OI), "1": AdapterSpec(LoRA, 2, 6.0)})
    for layer in adapters.layers.values():
        nn.init.normal_(layer.lora_B)
    return adapters, mask_OI


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    adapters, mask_OI = adapted()
    sparse, plain = adapters.layers.values()
    expected = (
        sparse.weight + 3.0 * (sparse.lora_B @ sparse.lora_A) * mask_OI,
        plain.weight + 3.0 * (plain.lora_B @ plain.lora_A),
    )
    for layer, weight in zip((sparse, plain), expected, strict=True):
        merged_OI = merged_weight(layer, dtype)
        assert merged_OI.dtype == dtype
        rounding = torch.finfo(dtype).eps if dtype != torch.float32 else 1e-6
        torch.testing.assert_close(merged_OI.float(), weight.detach(), rtol=rounding, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pruned_weight_is_a_positive_zero(dtype: torch.dtype) -> None:
    adapters, mask_OI = adapted()
    adapters.layers["0"].weight.data[~mask_OI] = -0.0
    assert torch.signbit(adapters.layers["0"].merged()[~mask_OI]).any()
    pruned = merged_weight(adapters.layers["0"], dtype)[~mask_OI]
    assert not pruned.any()
    assert not torch.signbit(pruned).any()


def test_a_weight_that_its_mask_prunes_stops_the_merge() -> None:
    adapters, mask_OI = adapted()
    weight_OI = adapters.layers["0"].weight.data
    row, column = (~mask_OI).nonzero()[5].tolist()
    weight_OI[row, column] = 1e-7
    with pytest.raises(CheckFailed, match=f"cannot merge 0: the weight in row {row}, column {column} is pruned"):
        check_mask("0", mask_OI, weight_OI, LAYER)


def test_a_mask_that_keeps_too_many_stops_the_merge() -> None:
    adapters, mask_OI = adapted()
    mask_OI[3, 8:12] = torch.tensor([True, True, True, False])
    with pytest.raises(CheckFailed, match="cannot merge 0: its mask does not hold 2:4 in row 3, group 2"):
        check_mask("0", mask_OI, adapters.layers["0"].weight.data, LAYER)


def test_sound_masks_pass() -> None:
    adapters, mask_OI = adapted()
    weight_OI = adapters.layers["0"].weight.data
    weight_OI[tuple(mask_OI.nonzero()[0].tolist())] = 0.0  # a kept weight may be zero
    check_mask("0", mask_OI, weight_OI, LAYER)


@pytest.mark.parametrize("name", ["0", "1"])
def test_a_weight_beyond_the_type_stops_the_merge(name: str) -> None:
    adapters, mask_OI = adapted()
    row, column = mask_OI.nonzero()[0].tolist()
    adapters.layers[name].weight.data[row, column] = 1e5
    with pytest.raises(CheckFailed, match=rf"cannot merge {name}: the weight in row {row}, column {column} is not finite"):
        check_finite(name, merged_weight(adapters.layers[name], torch.float16))
    check_finite(name, merged_weight(adapters.layers[name], torch.bfloat16))
