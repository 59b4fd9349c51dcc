from pathlib import Path

import pytest

from vlmc.runtime.cache import cache_folder


def test_the_cache_folder_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLMC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vlmc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "vlmc"
    monkeypatch.setenv("VLMC_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
