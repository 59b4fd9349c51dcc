"""Folders that vlmc works in: what it did not make, it never deletes."""

from pathlib import Path

import pytest

from vlmc.runtime.artifact import owned
from vlmc.runtime.artifact.owned import MARK, OwnFolder
from vlmc.runtime.errors import InputError


def test_what_carries_the_mark_is_taken_over_and_deleted(tmp_path: Path) -> None:
    own = OwnFolder(tmp_path / "a.work", {"seed": 1})
    (own.make() / "block").mkdir()
    (own.path / "block" / "weights").write_text("mine")
    assert OwnFolder(own.path).found() == {"seed": 1}
    OwnFolder(own.path).make()
    assert [path.name for path in own.path.iterdir()] == [MARK]
    OwnFolder(own.path).remove()
    assert list(tmp_path.iterdir()) == []


def user_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def renamed(path: Path) -> None:
    (OwnFolder(path.with_name("b.work")).make() / "thesis.txt").write_text("years of work")
    path.with_name("b.work").rename(path)


def with_another_mark(path: Path) -> None:
    user_folder(path)
    (path / MARK).write_text("my own file")


def link(path: Path) -> None:
    user_folder(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def file(path: Path) -> None:
    path.write_text("years of work")


@pytest.mark.parametrize("put", [user_folder, renamed, with_another_mark, link, file])
def test_nothing_else_is_touched(tmp_path: Path, put: object) -> None:
    put(tmp_path / "a.work")  # type: ignore[operator]
    for act in (OwnFolder.check, OwnFolder.make, OwnFolder.remove, OwnFolder.found):
        with pytest.raises(InputError, match=r"a\.work is in the way and was not made by vlmc: move it away"):
            act(OwnFolder(tmp_path / "a.work"))
    assert [path.read_text() for path in [*tmp_path.rglob("thesis.txt"), tmp_path / "a.work"] if path.is_file()] == [
        "years of work"
    ]


def test_a_deletion_that_was_killed_leaves_the_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnFolder(tmp_path / "a.work")
    (own.make() / "weights").write_text("mine")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owned, "_delete", killed)
        with pytest.raises(KeyboardInterrupt):
            own.remove()
    left = OwnFolder(own.path, {"seed": 1})
    assert left.is_going()
    assert left.found() is None  # parts of a run are no run to go on with
    left.make()
    assert not left.is_going()
    assert left.found() == {"seed": 1}
    left.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_mark_that_was_not_finished_belongs_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnFolder(tmp_path / "a.work")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            own.make()
    own.check()
    own.make()
    assert own.found() == {}
    own.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mark", [None, ""])
def test_a_folder_without_content_belongs_to_nobody(tmp_path: Path, mark: str | None) -> None:
    (tmp_path / "a.work").mkdir()
    if mark is not None:  # killed while it was written
        (tmp_path / "a.work" / MARK).write_text(mark)
    OwnFolder(tmp_path / "a.work").make()
