"""Merging: the values, their zeros, and what must never be merged."""

import pytest
import torch
from torch import nn

from vlmc.runtime.artifact import Layer, Part
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.repair.adapters import AdapterPlan, Adapters, attach
from vlmc.toolchain.repair.merging import check_masks, greatest_difference, merge
from vlmc.toolchain.repair.methods import LoRA, SparseLoRA

LAYERS = {"0": Layer(tensor="0.weight", pattern="2:4", part=Part.VISION)}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def adapted() -> tuple[nn.Sequential, Adapters, torch.Tensor]:
    """Return a model of a pruned and a dense layer with adapters on both, and the pruned layer's mask."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 8))
    mask_OI = SparsityPattern.parse("2:4").mask(model[0].weight.detach().abs())
    model[0].weight.data.mul_(mask_OI)
    adapters = attach(model, {"0": AdapterPlan(SparseLoRA, 2, 6.0, mask_OI), "1": AdapterPlan(LoRA, 2, 6.0)})
    for layer in adapters.layers.values():
        nn.init.normal_(layer.lora_B)
    return model, adapters, mask_OI


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    model, adapters, mask_OI = adapted()
    sparse, plain = adapters.layers.values()
    expected = (
        sparse.weight + 3.0 * (sparse.lora_B @ sparse.lora_A) * mask_OI,
        plain.weight + 3.0 * (plain.lora_B @ plain.lora_A),
    )
    merge(adapters, dtype)
    for layer, weight in zip(model, expected, strict=True):
        assert type(layer) is nn.Linear
        rounding = torch.finfo(dtype).eps if dtype != torch.float32 else 1e-6
        torch.testing.assert_close(layer.weight.data, weight.detach(), rtol=rounding, atol=1e-6)
        assert torch.equal(layer.weight.to(dtype).float(), layer.weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pruned_weight_is_a_positive_zero(dtype: torch.dtype) -> None:
    model, adapters, mask_OI = adapted()
    model[0].weight.data[~mask_OI] = -0.0
    assert torch.signbit(adapters.layers["0"].merged()[~mask_OI]).any()
    merge(adapters, dtype)
    pruned = model[0].weight.data[~mask_OI].to(dtype)
    assert not pruned.any()
    assert not torch.signbit(pruned).any()


def test_a_weight_that_its_mask_prunes_stops_the_merge() -> None:
    model, _, mask_OI = adapted()
    row, column = (~mask_OI).nonzero()[5].tolist()
    model[0].weight.data[row, column] = 1e-7
    with pytest.raises(CheckFailed, match=f"cannot merge 0: the weight in row {row}, column {column} is pruned"):
        check_masks(model, {"0": mask_OI}, LAYERS)


def test_a_mask_that_keeps_too_many_stops_the_merge() -> None:
    model, _, mask_OI = adapted()
    mask_OI[3, 8:12] = torch.tensor([True, True, True, False])
    with pytest.raises(CheckFailed, match="cannot merge 0: its mask does not hold 2:4 in row 3, group 2"):
        check_masks(model, {"0": mask_OI}, LAYERS)


def test_sound_masks_pass() -> None:
    model, _, mask_OI = adapted()
    model[0].weight.data[tuple(mask_OI.nonzero()[0].tolist())] = 0.0  # a kept weight may be zero
    check_masks(model, {"0": mask_OI}, LAYERS)


@pytest.mark.parametrize("name", ["0", "1"])
def test_a_weight_beyond_the_type_stops_the_merge(name: str) -> None:
    _, adapters, mask_OI = adapted()
    row, column = mask_OI.nonzero()[0].tolist()
    adapters.layers[name].weight.data[row, column] = 1e5
    with pytest.raises(CheckFailed, match=rf"cannot merge {name}: the weight in row {row}, column {column} is not finite"):
        merge(adapters, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_that_differ_by_more_than_rounding_are_refused(dtype: torch.dtype) -> None:
    before = [torch.tensor([[1.0, -4.0]]), torch.tensor([[2.0, 0.0]])]
    assert greatest_difference(before, before, dtype) == 0.0
    with pytest.raises(CheckFailed, match=r"differ from those of base and adapter by 0\.1"):
        greatest_difference(before, [before[0], before[1] + 0.4], dtype)
    with pytest.raises(CheckFailed, match="by nan"):
        greatest_difference(before, [before[0], before[1] * float("nan")], dtype)
