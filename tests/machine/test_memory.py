"""How much memory is free: the system's, or what a control group such as a container leaves."""

from pathlib import Path

import pytest

from vlmc.toolchain.machine import memory
from vlmc.toolchain.machine.memory import free_memory

MIB = 1 << 20


def group(folder: Path, version: int, most: str, taken: int, files: int) -> None:
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "cache"), 2: ("memory.max", "memory.current", "file")}
    limit, used, cached = names[version]
    folder.mkdir(parents=True)
    (folder / limit).write_text(f"{most}\n")
    (folder / used).write_text(f"{taken}\n")
    (folder / "memory.stat").write_text(f"anon 17\n{cached} {files}\n")


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """What is free where no group is: this process is in `a/b` of either version."""
    groups = tmp_path / "cgroup"
    groups.write_text("4:memory:/a/b\n0::/a/b\n")
    monkeypatch.setattr(memory, "_GROUPS", groups)
    return free_memory(tmp_path / "none")


@pytest.mark.parametrize(("version", "place"), [(2, "a/b"), (1, "memory/a/b"), (2, "."), (1, "memory")])
def test_a_group_leaves_its_limit_without_what_is_used(version: int, place: str, whole: int, tmp_path: Path) -> None:
    group(tmp_path / "root" / place, version, str(5 * MIB), 3 * MIB, MIB)
    assert free_memory(tmp_path / "root") == 3 * MIB < whole


@pytest.mark.parametrize("most", ["max", str(1 << 62), "?"])
def test_a_group_without_a_limit_leaves_all(most: str, whole: int, tmp_path: Path) -> None:
    group(tmp_path / "root" / "a/b", 2, most, MIB, 0)
    assert abs(free_memory(tmp_path / "root") - whole) < whole / 2


def test_a_group_that_is_full_leaves_nothing(whole: int, tmp_path: Path) -> None:
    group(tmp_path / "root" / "a/b", 2, str(MIB), 2 * MIB, 0)
    assert free_memory(tmp_path / "root") == 0 < whole


def test_without_groups_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "missing")
    assert free_memory(tmp_path) > 0
