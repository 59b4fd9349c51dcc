"""Dense products are ONNX Runtime's, of weights that it keeps each by itself."""

import sys

import pytest

from tests.runtime.kernels.material import needs_library
from vlmc.runtime.kernels import speed
from vlmc.toolchain.machine import speeds


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speeds, "SIZE", (64, 96))
    monkeypatch.setattr(speed, "LARGE", (64, 256))
    monkeypatch.setattr(speed, "READ", 1 << 20)


@needs_library
def test_dense_products_are_measured() -> None:
    ticks = iter(range(1_000_000))
    found = speeds.machine_speeds(1, lambda: float(next(ticks)))
    assert found.dense_read == 4 * 64 * 96 * 3  # a tick
    assert found.bytes_read == 1 << 20


@needs_library
@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_its_packages_dense_is_as_fast_as_reading(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(speeds, "find_spec", lambda name: None if name == missing else object())
    found = speeds.machine_speeds(1)
    assert found.dense_read == found.bytes_read
