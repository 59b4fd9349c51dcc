"""Every instruction set that this CPU has multiplies as float64 does, whatever the sizes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.kernels.material import PAIRS, activations_RI, assert_exact, needs_library, sparse_OI
from vlmc.runtime.errors import EnvironmentLacks
from vlmc.runtime.kernels import native
from vlmc.runtime.kernels.packing import Array, Packed, ValueType, from_bfloat16, pack, pack_rounded, to_bfloat16, unpack
from vlmc.runtime.kernels.rounding import Rounded

pytestmark = needs_library
SETS = native.instruction_sets()
FLAGS = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
WHOLE = [name for name in SETS if name in ("amx", "avx512", "avx2")]
"""What has kernels for activations in int8."""
TYPES: tuple[ValueType, ...] = ("fp32", "bf16", "fp16", "int8")


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dense", [False, True])
def test_sizes_of_every_kind(instruction_set: str, kind: ValueType, dense: bool) -> None:
    for outputs, inputs in [(1, 4), (7, 36), (16, 32), (33, 100), (48, 672)]:
        packed = pack(sparse_OI(outputs, inputs), kind, dense=dense, span=64)
        bias = activations_RI(1, outputs)[0]
        for rows in (1, 2, 3, 8, 9, 33):
            x = activations_RI(rows, inputs)
            assert_exact(native.matmul(x, packed, None, instruction_set), x, packed)
            assert_exact(native.matmul(x, packed, bias, instruction_set), x, packed, bias)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("kind", TYPES)
def test_every_number_of_rows(instruction_set: str, kind: ValueType) -> None:
    packed = pack(sparse_OI(40, 96), kind, span=32)
    for rows in range(34):
        x = activations_RI(rows, 96)
        assert_exact(native.matmul(x, packed, None, instruction_set), x, packed)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dense", [False, True])
def test_more_columns_and_outputs_than_one_pass_takes(instruction_set: str, kind: ValueType, dense: bool) -> None:
    packed, x = pack(sparse_OI(100, 4420), kind, dense=dense, span=96), activations_RI(70, 4420)
    bias = activations_RI(1, 100)[0]
    assert_exact(native.matmul(x, packed, bias, instruction_set), x, packed, bias)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("kind", TYPES)
def test_no_digit_of_x_is_lost(instruction_set: str, kind: ValueType) -> None:
    """One weight picks one x: where x goes in parts, they add up to it exactly, large or small."""
    weight = np.zeros((4, 32), np.float32)
    weight[range(4), [0, 9, 18, 31]] = (1, -127, 1, 127)
    x = activations_RI(40, 32) * np.float32(10) ** np.linspace(-20, 30, 40, dtype=np.float32)[:, None]
    x[0, 0], x[1, 18] = np.nextafter(np.float32(2), np.float32(1)), np.finfo(np.float32).max / 256
    x[2, 0] = np.finfo(np.float32).max / (128 if kind == "int8" else 1)
    found = native.matmul(x, pack(weight, kind, span=32), None, instruction_set)
    expected = np.stack([x[:, 0], -127 * x[:, 9], x[:, 18], 127 * x[:, 31]], 1)
    np.testing.assert_allclose(found, expected, rtol=2.0**-22 if kind == "int8" else 2.0**-23)
    if kind != "int8":
        assert (found[:, [0, 2]] == expected[:, [0, 2]]).all()


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_no_digit_of_a_weight_is_lost(instruction_set: str, kind: ValueType) -> None:
    """One x picks one weight: where weights go in parts, what is left out of the product is less than rounding takes."""
    weight, x = sparse_OI(500, 4), np.eye(40, 4, dtype=np.float32)
    if kind == "fp32":
        weight *= np.float32(10) ** np.linspace(-20, 30, 500, dtype=np.float32)[:, None]
    packed = pack(weight, kind)
    found = native.matmul(x, packed, None, instruction_set)
    assert (unpack(packed) == found[:4].T).all()
    assert (found[4:] == 0).all()
    x *= activations_RI(40, 4)
    expected = x[:4].astype(np.float64) @ unpack(packed).astype(np.float64).T
    np.testing.assert_allclose(native.matmul(x, packed, None, instruction_set)[:4], expected, rtol=2.0**-22)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("rounded", ["fp32", "bf16"])
def test_what_is_no_number_stays_in_its_row_among_many(
    instruction_set: str, kind: ValueType, rounded: native.Rounding
) -> None:
    packed, x = pack(sparse_OI(40, 96), kind), np.abs(activations_RI(40, 96))
    usual = native.matmul(x, packed, None, instruction_set, rounded=rounded)
    x[17, 5], x[38, 90] = np.inf, np.array(0x7F800001, np.uint32).view(np.float32)  # a NaN in its lowest bit alone
    found = native.matmul(x, packed, None, instruction_set, rounded=rounded)
    reads = unpack(packed)[:, [5, 90]] != 0
    assert not np.isfinite(found[17, reads[:, 0]]).any()
    assert np.isnan(found[38, reads[:, 1]]).all()
    assert (np.delete(found, [17, 38], 0) == np.delete(usual, [17, 38], 0)).all()


@pytest.mark.parametrize("instruction_set", SETS)
def test_every_pair_of_places_selects_its_columns(instruction_set: str) -> None:
    x = np.array([[1, 10, 100, 1000]], np.float32)
    for first, second in PAIRS:
        weight = np.zeros((1, 4), np.float32)
        weight[0, first], weight[0, second] = 2, 3
        [[found]] = native.matmul(x, pack(weight, "bf16"), None, instruction_set)
        assert found == 2 * 10**first + 3 * 10**second


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_what_is_no_number_stays_in_its_row_and_output(instruction_set: str, kind: ValueType) -> None:
    weight = sparse_OI(20, 64)
    weight[3, :4] = (np.inf, 0, 0, 1)
    weight[7, 4:8] = (0, np.nan, 0, 1)
    x = np.abs(activations_RI(3, 64))
    x[1, 40] = np.inf
    found = native.matmul(x, pack(weight, kind), None, instruction_set)
    assert np.isnan(found[:, 7]).all()
    assert (found[[0, 2], 3] == np.inf).all()
    others = np.delete(found[[0, 2]], [3, 7], 1)
    assert np.isfinite(others).all()
    reads = weight[:, 40] != 0
    assert np.isinf(found[1, reads & ~np.isin(np.arange(20), [3, 7])]).all()
    assert not np.isfinite(found[1, reads]).any()


def test_halves_below_the_normal_range_are_not_lost() -> None:
    weight = np.array([[2.0**-24, 0, 0, -(2.0**-20)]], np.float32)
    for name in SETS:
        assert native.matmul(np.ones((1, 4), np.float32), pack(weight, "fp16"), None, name)[0, 0] == 2.0**-24 - 2.0**-20


@pytest.mark.parametrize("instruction_set", SETS)
def test_many_rows_may_be_rounded_to_bf16_and_no_more(instruction_set: str) -> None:
    has = instruction_set == "amx" or (instruction_set == "avx512" and "avx512_bf16" in FLAGS)
    for outputs, inputs in [(7, 36), (16, 32), (33, 100), (48, 672)]:
        packed, bias = pack(sparse_OI(outputs, inputs), "bf16"), activations_RI(1, outputs)[0]
        for rows in (1, 8, 9, 16, 33, 70):
            x = activations_RI(rows, inputs)
            found = native.matmul(x, packed, bias, instruction_set, rounded="bf16")
            rounds = rows > 8 and has
            assert (found == native.matmul(x, packed, bias, instruction_set)).all() != rounds
            assert_exact(found, from_bfloat16(to_bfloat16(x)) if rounds else x, packed, bias)


def in_whole_numbers(x_RI: Array, span: int) -> Array:
    """Return x as int8 has it, with a scale of max|x| / 127 for each row and `span` columns."""
    found = np.zeros_like(x_RI)
    for begin in range(0, x_RI.shape[1], span):
        part = x_RI[:, begin : begin + span]
        scales = np.abs(part).max(1, keepdims=True) / np.float32(127)
        factors = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > np.finfo(np.float32).tiny)
        found[:, begin : begin + span] = np.rint(part * factors) * scales
    return found


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("dense", [False, True])
def test_activations_may_be_rounded_to_int8_and_no_more(instruction_set: str, dense: bool) -> None:
    rounds = instruction_set in WHOLE
    for outputs, inputs in [(1, 4), (7, 36), (16, 32), (33, 100), (48, 672)]:
        bias = activations_RI(1, outputs)[0]
        for span in (32, 128):
            packed = pack(sparse_OI(outputs, inputs), "int8", dense=dense, span=span)
            for rows in (*range(1, 10), 33, 70):
                x = activations_RI(rows, inputs)
                found = native.matmul(x, packed, bias, instruction_set, rounded="int8")
                assert_exact(found, in_whole_numbers(x, span) if rounds else x, packed, bias)


@pytest.mark.parametrize("instruction_set", WHOLE)
@pytest.mark.parametrize("span", [64, 96, 256])
def test_a_row_in_int8_has_the_same_answer_whatever_stands_beside_it(instruction_set: str, span: int) -> None:
    packed, x = pack(sparse_OI(40, 4420), "int8", span=span), activations_RI(70, 4420)
    bias = activations_RI(1, 40)[0]
    alone = np.concatenate([native.matmul(row[None], packed, bias, instruction_set, rounded="int8") for row in x])
    for rows in (2, 4, 16, 17, 70):
        assert (native.matmul(x[:rows], packed, bias, instruction_set, rounded="int8") == alone[:rows]).all()


@pytest.mark.parametrize("instruction_set", WHOLE)
@pytest.mark.parametrize("rows", [6, 40])
def test_rows_in_int8_keep_what_is_no_number_to_themselves(instruction_set: str, rows: int) -> None:
    packed, x = pack(sparse_OI(40, 256), "int8"), activations_RI(rows, 256)
    usual = native.matmul(x, packed, None, instruction_set, rounded="int8")
    x[1, 200], x[3, 7], x[4] = np.nan, np.inf, 0
    found = native.matmul(x, packed, None, instruction_set, rounded="int8")
    assert np.isnan(found[[1, 3]]).all()
    assert (np.delete(found, [1, 3, 4], 0) == np.delete(usual, [1, 3, 4], 0)).all()
    assert (found[4] == 0).all()


def test_the_least_int8_does_not_overflow() -> None:
    """A damaged file may hold -128, which rounding never makes."""
    whole = np.tile(np.array([[-128, 0, 0, -128]], np.int8), (3, 8))
    packed = pack_rounded(Rounded(whole, np.ones((3, 1), np.float32), 32))
    x = np.full((1, 32), -1, np.float32)
    np.testing.assert_allclose(native.matmul(x, packed, rounded="int8"), np.full((1, 3), 16 * 128.0), rtol=1e-6)


def test_threads_share_a_product() -> None:
    packed, x = pack(sparse_OI(1000, 256), "bf16"), activations_RI(70, 256)
    y = np.full((70, 1000), np.nan, np.float32)
    described = native.product(x, packed, None, y)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda part: native.run(described, part=part, parts=3), range(3)))
    assert_exact(y, x, packed)


def test_instruction_sets_agree_in_everything_but_rounding() -> None:
    packed, x = pack(sparse_OI(50, 1056), "bf16"), activations_RI(5, 1056)
    first, *others = (native.matmul(x, packed, None, name) for name in SETS)
    for other in others:
        np.testing.assert_allclose(first, other, rtol=1e-4, atol=1e-4)


def test_wrong_use_is_told() -> None:
    packed = pack(sparse_OI(4, 8), "bf16")
    with pytest.raises(EnvironmentLacks, match="'mmx': this CPU has no such instruction set"):
        native.matmul(activations_RI(1, 8), packed, None, "mmx")
    odd = Packed("int8", 4, 8, packed.values, packed.positions, None, 128)
    with pytest.raises(EnvironmentLacks, match="the arrays are no product"):
        native.matmul(activations_RI(1, 8), odd)


def test_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    with pytest.raises(EnvironmentLacks, match="were not built when vlmc was installed: install a C"):
        native.require_library()
    assert native.instruction_sets() == []
