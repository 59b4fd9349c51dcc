"""What is measured to choose a type and to predict a gain."""

import pytest

from tests.runtime.kernels.material import needs_library, sparse_OI
from vlmc.runtime.kernels import speed
from vlmc.runtime.kernels.packing import pack
from vlmc.runtime.kernels.speed import TYPES, Speeds, fastest, speeds, stored_bytes

SLOW_READING = Speeds(1, 1e9, dict.fromkeys(TYPES, 1e15), 0.5e9)


@pytest.mark.parametrize("kind", TYPES)
def test_bytes_are_those_of_packed_weights(kind: speed.ValueType) -> None:
    assert stored_bytes(kind, 64, 256) == pack(sparse_OI(64, 256), kind).nbytes


def test_memory_or_computing_is_the_limit() -> None:
    assert SLOW_READING.seconds("bf16", 16, 32) == pytest.approx(16 * 32 * 9 / 8 / 1e9)
    assert SLOW_READING.gain("bf16") == pytest.approx(2 * 32 / 9)
    assert SLOW_READING.gain("fp32") == pytest.approx(2 * 32 / 17)
    assert Speeds(1, 1e15, {"bf16": 1e9}, 1e15).seconds("bf16", 16, 32) == pytest.approx(16 * 32 / 1e9)


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
