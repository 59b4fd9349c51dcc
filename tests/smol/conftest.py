"""What the tests of `smol` share: a pico language model, and a cache folder of their own."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file of a pico language model."""
    pytest.importorskip("gguf")
    from tests.smol.material import write_gguf

    path = tmp_path_factory.mktemp("gguf") / "pico.gguf"
    write_gguf(path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the user's."""
    monkeypatch.setenv("VLMC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "smol"
