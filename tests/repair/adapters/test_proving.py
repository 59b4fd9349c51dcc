"""The proof of a merge, part by part: a layer's update, the bits in the file, the logits."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.tensors import TensorFile
from vlmc.toolchain.repair.adapters.adding import Sum
from vlmc.toolchain.repair.adapters.proving import _check_bits, check_update, compare
from vlmc.toolchain.repair.methods import SPP, Adapted, AdapterSpec, LoRA, LoRS, MaskedFull, SparseLoRA

BASE = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
MASKED: list[type[Adapted]] = [SparseLoRA, LoRS, SPP, MaskedFull]


def layer(kind: type[Adapted], size: float) -> Adapted:
    """Return an adapter whose update is about that part of the weight; SPP's goes by its own factors."""
    torch.manual_seed(0)
    linear, mask_OI = nn.Linear(64, 48), torch.rand(48, 64) > 0.5
    linear.weight.data.mul_(mask_OI)
    made = kind(linear, AdapterSpec(kind, 4, 8.0, None if kind is LoRA else mask_OI), torch.Generator().manual_seed(0))
    for part in list(made.trained().values())[-1:]:
        nn.init.normal_(part, std=size * 0.1)
    return made


@pytest.mark.parametrize("kind", [*MASKED, LoRA])
@pytest.mark.parametrize("size", [10.0, 1e-3])
def test_an_update_that_a_merge_loses_is_noticed_however_small(kind: type[Adapted], size: float) -> None:
    made = layer(kind, size)
    check_update("it", made, made.merged())
    with pytest.raises(CheckFailed, match="the merged weight of it is not what was trained"):
        check_update("it", made, made.weight)


def test_a_sum_that_lacks_a_part_is_noticed() -> None:
    one, other = layer(SparseLoRA, 10.0), layer(SparseLoRA, 1e-2)
    other.weight = one.weight
    both = Sum.of(nn.Linear(64, 48), [one, other])
    both.weight, both.bias = one.weight, one.bias
    other.bias = one.bias
    check_update("it", both, both.merged())
    with pytest.raises(CheckFailed, match="not what was trained"):
        check_update("it", both, one.merged())


@pytest.mark.slow
@pytest.mark.parametrize("rows", [48, pytest.param(4096, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rank", [16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_right_merge_of_a_large_layer_is_not_refused(rows: int, rank: int, dtype: torch.dtype) -> None:
    """Sums over 11008 inputs, and over many adapters, are rounded more often.

    Measured in units of float32, of the 64 that are allowed for each adapter: one adapter 0 to 4, forty added up 105.
    """
    draw = torch.Generator().manual_seed(0)
    mask_OI = torch.rand(rows, 11008, generator=draw) > 0.5
    linear = nn.Linear(11008, rows, device="meta")
    linear.weight = nn.Parameter((0.02 * torch.randn(rows, 11008, generator=draw)).to(dtype).float() * mask_OI)
    linear.bias = nn.Parameter(torch.zeros(rows))

    def adapted(kind: type[Adapted], size: float) -> Adapted:
        made = kind(linear, AdapterSpec(kind, rank, 16.0, None if kind is LoRA else mask_OI), draw)
        nn.init.normal_(made.get_parameter("lora_B"), std=size, generator=draw)
        return made

    for size in (1e-3, 1.0):
        one = adapted(SparseLoRA, size)
        for made in (adapted(LoRA, size), one, Sum.of(linear, [one] * (40 if rows == 48 else 4))):
            merged_OI = made.merged()
            check_update("it", made, merged_OI)
            with pytest.raises(CheckFailed, match="is not what was trained"):
                check_update("it", made, torch.lerp(made.weight, merged_OI, 0.9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_bit_is_noticed(dtype: torch.dtype, tmp_path: Path) -> None:
    expected = torch.randn(4, 8).to(dtype)
    wrong = expected.clone()
    wrong[2, 3] = torch.nextafter(wrong[2, 3], torch.tensor(9.0, dtype=dtype))
    expected[0, 0], negative = 0.0, expected.clone()
    negative[0, 0] = -0.0
    for name, saved, row, column in (("wrong", wrong, 2, 3), ("negative", negative, 0, 0)):
        wrong[0, 0] = 0.0
        save_file({"w": expected, "bad": saved}, tmp_path / f"{name}.safetensors")
        file = TensorFile(tmp_path / f"{name}.safetensors")
        _check_bits("it", expected, file, "w")
        with pytest.raises(CheckFailed, match=f"of it is not base .* row {row}, column {column} is the first of 1"):
            _check_bits("it", expected, file, "bad")
    other = torch.float32 if dtype != torch.float32 else torch.bfloat16
    with pytest.raises(CheckFailed, match="is stored as"):
        _check_bits("it", expected.to(other), file, "w")


def refuse() -> Tensor:
    raise AssertionError("rounding is asked for only where it is needed")


def test_a_merged_model_that_is_plainly_nearer_needs_no_reason() -> None:
    adapted = BASE + 0.1
    scale, gap, moved = compare(BASE, adapted, adapted + 0.01, refuse)
    assert scale == pytest.approx(float(adapted.abs().max()))
    assert (gap, moved) == (pytest.approx(0.01, rel=1e-3), pytest.approx(0.1, rel=1e-3))


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-3])
def test_a_lost_adapter_is_noticed_by_the_measure_of_its_effect(size: float) -> None:
    adapted = BASE + size
    with pytest.raises(CheckFailed, match=r"merged model's logits differ .* rounding does not explain it"):
        compare(BASE, adapted, BASE, lambda: adapted)
    with pytest.raises(CheckFailed, match="by nan"):
        compare(BASE, adapted, adapted * float("nan"), lambda: adapted)


def test_what_rounding_does_to_a_tiny_adapter_is_no_fault() -> None:
    adapted, rounded = BASE + 1e-4, BASE + 1e-2  # rounding outweighs the adapter
    compare(BASE, adapted, rounded + 1e-7, lambda: rounded)
    compare(BASE, BASE, BASE, lambda: BASE)  # an adapter that does nothing
    with pytest.raises(CheckFailed, match="rounding does not explain it"):
        compare(BASE, adapted, BASE + 5e-3, lambda: rounded)
