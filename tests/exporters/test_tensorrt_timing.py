"""What a build timed is kept for the next one; a cache that is of no use costs nothing but time."""

import types
from pathlib import Path
from typing import Any

import pytest

from vlmc.exporters.tensorrt.binding import Binding
from vlmc.exporters.tensorrt.timing import remembered

TENSORRT = Binding("tensorrt", types.SimpleNamespace(__version__="10.3.0"))


class Config:
    """Stands for TensorRT's builder configuration: it takes what begins with `timed`, and times one tactic more."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.cache: bytes | None = None

    def create_timing_cache(self, content: bytes) -> bytes | None:
        self.given.append(content)
        return None if content == b"garbage" else content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        fits = not cache or cache.startswith(b"timed")
        self.cache = cache if fits else self.cache
        return fits

    def get_timing_cache(self) -> Any:
        return types.SimpleNamespace(serialize=lambda: memoryview((self.cache or b"timed") + b" one"))


def built(gpu: str = "sm90", binding: Binding = TENSORRT) -> Config:
    config = Config()
    with remembered(binding, config, gpu):
        pass
    return config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/tensorrt"


def test_the_next_build_on_that_gpu_and_version_knows_it(folder: Path) -> None:
    assert built().given == [b""]
    assert built().given == [b"timed one"]
    assert [path.name for path in folder.iterdir()] == ["10.3.0-sm90.timing"]
    assert built("sm86").given == [b""]
    assert built(binding=Binding("tensorrt", types.SimpleNamespace(__version__="11.4.0"))).given == [b""]
    assert built().given == [b"timed one one"]


@pytest.mark.parametrize("content", [b"garbage", b"another device's"])
def test_a_cache_that_is_refused_is_replaced(folder: Path, content: bytes) -> None:
    built()
    (folder / "10.3.0-sm90.timing").write_bytes(content)
    assert built().given == [content, b""]
    assert (folder / "10.3.0-sm90.timing").read_bytes() == b"timed one"


def test_a_build_that_fails_leaves_it(folder: Path) -> None:
    built()
    with pytest.raises(KeyboardInterrupt), remembered(TENSORRT, Config(), "sm90"):
        raise KeyboardInterrupt
    assert (folder / "10.3.0-sm90.timing").read_bytes() == b"timed one"


def test_without_a_place_for_it_the_build_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.write_bytes(b"a file")
    assert built().given == [b""]

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("vlmc.exporters.tensorrt.timing.cache_folder", homeless)
    assert built().given == [b""]


def test_tensorrt_rtx_times_nothing(folder: Path) -> None:
    assert built(binding=Binding("tensorrt_rtx", types.SimpleNamespace(__version__="1.7.1"))).given == []
    assert not folder.exists()
