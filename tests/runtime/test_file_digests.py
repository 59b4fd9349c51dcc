"""The cache of files' digests: it saves reading, and is never wrong."""

import os
import sqlite3
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from vlmc.runtime.artifact import file_digests
from vlmc.runtime.artifact.file_digests import FileDigests


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read; files count as old from the start."""
    found: list[Path] = []
    plain = file_digests.sha256_file
    monkeypatch.setattr(file_digests, "sha256_file", lambda path: found.append(path) or plain(path))
    monkeypatch.setattr(file_digests, "RACY_NS", -1)
    return found


def digest(cache: Path, *paths: Path) -> list[str]:
    with FileDigests(cache) as files:
        return [files.of(path) for path in paths]


def make(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_file_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    one, other = make(tmp_path / "a", b"a"), make(tmp_path / "b", b"b")
    expected = [sha256(content).hexdigest() for content in (b"a", b"b")]
    for _ in range(2):
        assert digest(tmp_path / "cache", one, other) == expected
    assert read == [one, other]


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path, read: list[Path]) -> None:
    path = make(tmp_path / "a", b"before")
    before = path.stat()
    first = digest(tmp_path / "cache", path)
    path.write_bytes(b"after!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) == (6, before.st_mtime_ns, before.st_ino)
    assert digest(tmp_path / "cache", path) == [sha256(b"after!").hexdigest()] != first
    make(tmp_path / "new", b"third!").replace(path)
    assert digest(tmp_path / "cache", path) == [sha256(b"third!").hexdigest()]


def test_a_file_that_was_just_changed_is_not_kept(tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "RACY_NS", 2_000_000_000)
    path = make(tmp_path / "a", b"a")
    for _ in range(2):
        digest(tmp_path / "cache", path)
    assert len(read) == 2


def test_two_at_once_keep_what_both_found(tmp_path: Path, read: list[Path]) -> None:
    paths = [make(tmp_path / str(number), b"x" * number) for number in range(4)]
    with FileDigests(tmp_path / "cache") as one, FileDigests(tmp_path / "cache") as other:
        for path in paths[:2]:
            one.of(path)
        for path in paths[2:]:
            other.of(path)
    digest(tmp_path / "cache", *paths)
    assert sorted(read) == paths


@pytest.mark.integration
def test_two_processes_at_once(tmp_path: Path, read: list[Path]) -> None:
    paths = [make(tmp_path / str(number), b"x" * number) for number in range(60)]
    code = (
        "import sys; from pathlib import Path; from vlmc.runtime.artifact import file_digests as f\n"
        "f.RACY_NS, f._AT_ONCE = -1, 1\n"
        "with f.FileDigests(Path(sys.argv[1])) as files: [files.of(Path(one)) for one in sys.argv[2:]]"
    )
    parts = [[sys.executable, "-c", code, str(tmp_path / "cache"), *map(str, part)] for part in (paths[::2], paths[1::2])]
    started = [subprocess.Popen(part) for part in parts]
    assert [process.wait() for process in started] == [0, 0]
    digest(tmp_path / "cache", *paths)
    assert read == []


def test_a_damaged_cache_is_made_anew(tmp_path: Path, read: list[Path]) -> None:
    path = make(tmp_path / "a", b"a")
    digest(tmp_path / "cache", path)
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_bytes(b"no database" * 1000)
    for _ in range(2):
        assert digest(tmp_path / "cache", path) == [sha256(b"a").hexdigest()]
    assert len(read) == 2


def test_without_a_cache_files_are_read_every_time(tmp_path: Path, read: list[Path]) -> None:
    path = make(tmp_path / "a", b"a")
    for _ in range(2):
        assert digest(make(tmp_path / "file", b"") / "cache", path) == [sha256(b"a").hexdigest()]
    assert len(read) == 2


def test_without_a_home_files_are_read_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(file_digests, "cache_folder", homeless)
    with FileDigests() as files:
        assert files.of(make(tmp_path / "a", b"a")) == sha256(b"a").hexdigest()


def test_a_cache_that_another_process_holds_is_done_without(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "WAIT", 0.01)
    path = make(tmp_path / "a", b"a")
    digest(tmp_path / "cache", path)
    (cache,) = (tmp_path / "cache").iterdir()
    held = sqlite3.connect(cache, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    assert digest(tmp_path / "cache", path) == [sha256(b"a").hexdigest()]
    held.close()


def test_the_oldest_entries_go(tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "MOST", 3)
    paths = [make(tmp_path / str(number), b"x" * number) for number in range(5)]
    digest(tmp_path / "cache", *paths)
    read.clear()
    digest(tmp_path / "cache", *reversed(paths[2:]))
    assert read == []
    digest(tmp_path / "cache", paths[0])
    assert read == [paths[0]]


def test_a_name_that_is_no_text_is_read_every_time(tmp_path: Path, read: list[Path]) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    path.write_bytes(b"a")
    for _ in range(2):
        assert digest(tmp_path / "cache", path) == [sha256(b"a").hexdigest()]
