"""One process at a time writes into one place, and locks leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from vlmc.runtime.artifact import locking
from vlmc.runtime.artifact.locking import exclusive
from vlmc.runtime.errors import EnvironmentLacks, InputError

HOLD = "import sys; from pathlib import Path; from vlmc.runtime.artifact.locking import exclusive\n"
HOLD += "with exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def holder(place: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.integration
def test_the_second_process_gets_one_line_and_a_killed_one_holds_nobody_up(tmp_path: Path) -> None:
    with holder(tmp_path / "new" / "a") as process:
        with (
            pytest.raises(InputError, match=r"another process is writing .*a: wait until it is done"),
            exclusive(tmp_path / "new" / "a"),
        ):
            pass
        process.kill()
        process.wait()
    with exclusive(tmp_path / "new" / "a"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]  # made by the process that was killed


def test_nested_in_a_thread_but_not_across_threads(tmp_path: Path) -> None:
    refused = []

    def other() -> None:
        try:
            with exclusive(tmp_path / "a"):
                pass
        except InputError as error:
            refused.append(str(error))

    with exclusive(tmp_path / "a"):
        with exclusive(tmp_path / "." / "a"), exclusive(tmp_path / "a", "onnx"):
            pass
        thread = Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert list(tmp_path.iterdir()) == []


def test_one_folder_has_one_lock_under_all_its_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    with exclusive(tmp_path / "link"):
        assert [path.name for path in tmp_path.iterdir() if path.name.endswith("lock")] == [".a.lock"]


def test_it_lies_inside_where_nothing_can_be_written_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with exclusive(tmp_path / "a"):
        assert [path.name for path in (tmp_path / "a").iterdir()] == [".a.lock"]
    assert list((tmp_path / "a").iterdir()) == []


def test_folders_made_for_a_lock_go_with_it(tmp_path: Path) -> None:
    with exclusive(tmp_path / "new" / "deep" / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(EnvironmentLacks, match="pip install"), locking.exclusive(tmp_path / "a"):
        pass
