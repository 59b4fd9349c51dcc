"""Packing keeps every weight: what comes back is what went in, within the type's rounding."""

import numpy as np
import pytest

from tests.runtime.kernels.material import PAIRS, sparse_OI
from vlmc.runtime.errors import InputError
from vlmc.runtime.kernels.packing import ValueType, from_bfloat16, pack, to_bfloat16, unpack

TYPES: tuple[ValueType, ...] = ("fp32", "bf16", "fp16", "int8")
EPSILON = {"fp32": 0.0, "bf16": 2.0**-8, "fp16": 2.0**-11}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 4), (16, 32), (17, 36), (40, 132)])
def test_weight_comes_back(kind: ValueType, dense: bool, outputs: int, inputs: int) -> None:
    weight = sparse_OI(outputs, inputs)
    found = unpack(pack(weight, kind, dense=dense, span=32))
    assert found.shape == weight.shape
    if kind == "int8":
        for span in range(0, inputs, 32):
            part = weight[:, span : span + 32]
            step = np.abs(part).max(1, keepdims=True) / 127
            assert (np.abs(found[:, span : span + 32] - part) <= step * 0.501).all()
    else:
        assert (np.abs(found - weight) <= np.abs(weight) * EPSILON[kind]).all()
    assert ((weight != 0) | (found == 0)).all()


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_every_pair_of_places_and_what_is_no_number(kind: ValueType) -> None:
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 1.5, 6e-5], np.float32)
    weight = np.zeros((6, 4 * len(PAIRS)), np.float32)
    for group, (first, second) in enumerate(PAIRS):
        weight[:, 4 * group + first], weight[:, 4 * group + second] = values, values[::-1]
    np.testing.assert_allclose(unpack(pack(weight, kind)), weight, rtol=2.0**-8)


def test_groups_with_fewer_than_two_weights() -> None:
    weight = np.zeros((3, 12), np.float32)
    weight[0, 3], weight[2, 8] = 1.0, 2.0
    assert (unpack(pack(weight, "fp32")) == weight).all()


def test_sizes_are_nine_sixteenths_of_dense_16_bits_and_five_eighths_of_int8() -> None:
    weight = sparse_OI(64, 256)
    assert pack(weight, "bf16").nbytes * 16 == weight.size * 2 * 9
    assert pack(weight, "int8", span=256).nbytes == weight.size * 5 // 8 + 64 * 4


def test_weight_that_is_not_2_4_is_refused() -> None:
    weight = sparse_OI(4, 8)
    weight[2, 4:7] = 1.0
    with pytest.raises(InputError, match="not 2:4"):
        pack(weight, "bf16")
    with pytest.raises(InputError, match="not 2:4"):
        pack(np.zeros((4, 6), np.float32), "bf16")
    with pytest.raises(InputError, match="48 columns cannot share a scale: give a multiple of 32"):
        pack(weight, "int8", span=48)


def test_bf16_rounds_to_nearest_and_ties_to_even() -> None:
    values = np.array([1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 3.4e38, np.nan, -np.inf], np.float32)
    values = np.append(values, np.array([0x7F800001], np.uint32).view(np.float32))  # a NaN that only has low bits
    found = from_bfloat16(to_bfloat16(values))
    np.testing.assert_array_equal(found, np.array([1, 1, 1 + 2.0**-6, np.inf, np.nan, -np.inf, np.nan], np.float32))
