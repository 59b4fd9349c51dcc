"""What is measured to choose a type and to predict a gain."""

import numpy as np
import pytest

from tests.runtime.kernels.material import needs_library
from vlmc.runtime.kernels import speed
from vlmc.runtime.kernels.packing import pack
from vlmc.runtime.kernels.speed import TYPES, Speeds, fastest, speeds


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_a_weight_of_ones_is_packed_as_any(kind: speed.ValueType, dense: bool) -> None:
    weight = np.ones((40, 128), np.float32) if dense else np.tile(np.float32([1, 1, 0, 0]), (40, 32))
    found, packed = speed.of_ones(kind, 40, 128, dense=dense), pack(weight, kind, dense=dense)
    for name in ("values", "positions", "scales"):
        one, other = getattr(found, name), getattr(packed, name)
        assert (one is None) == (other is None)
        assert one is None or (one.shape, one.dtype) == (other.shape, other.dtype)


def test_the_gain_is_over_dense_float32() -> None:
    assert Speeds(1, 1e12, {"bf16": 3e9, "int8": 1e9}, 4e9).gain("bf16") == 3
    assert Speeds(1, 1e12, {"bf16": 3e9, "int8": 1e9}, 2e9).gain("int8") == 2


@pytest.mark.parametrize(("times", "chosen"), [((4, 2.05, 2, 1), "bf16"), ((4, 3, 2, 1), "fp16"), ((1, 3, 2, 1), "fp32")])
def test_fastest_is_taken_but_never_int8(times: tuple[float, ...], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_products", lambda threads, seconds: dict(zip(TYPES, times, strict=True)))
    found = fastest()
    assert found.type == chosen
    assert found.milliseconds["int8"] == 1000


@needs_library
def test_everything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "LARGE", (64, 256))
    monkeypatch.setattr(speed, "READ", 1 << 20)
    assert set(fastest(0.01, 2).milliseconds) == set(TYPES)
    found = speeds(0.02, 2)
    assert found.bytes_read == found.dense_read > 0
    assert all(found.gain(kind) > 0 for kind in TYPES)
