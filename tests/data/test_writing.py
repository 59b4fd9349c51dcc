"""Samples as files: written whole or not at all, and never over anything else."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vlmc.runtime.artifact.owned import OwnFolder
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data import load
from vlmc.toolchain.data.writing import write


def test_write_round_trip(tmp_path: Path) -> None:
    lines = write(load("demo", "test", 12), tmp_path / "set", "test").read_text(encoding="utf-8").splitlines()
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["images", "test.jsonl"]
    for line, sample in zip(lines, load("demo", "test", 12), strict=True):
        record = json.loads(line)
        assert (record["id"], record["kind"]) == (sample.id, sample.kind)
        assert record["conversations"] == [
            {"from": "human", "value": f"<image>\n{sample.question}"},
            {"from": "gpt", "value": sample.answer},
        ]
        with Image.open(tmp_path / "set" / record["image"]) as image:
            assert image.tobytes() == sample.load_image().tobytes()


def test_write_leaves_an_existing_folder_alone_unless_forced(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(load("demo", "test", 3), folder, "test")
    before = (folder / "test.jsonl").read_text()
    with pytest.raises(InputError, match="exists"):
        write(load("demo", "test", 2), folder, "test")
    assert (folder / "test.jsonl").read_text() == before
    write(load("demo", "validation", 2), folder, "validation", force=True)
    assert {path.name for path in folder.iterdir()} == {"images", "validation.jsonl"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk"):
        write(load("demo", "test", 2), tmp_path / "set", "test")
    assert list(tmp_path.iterdir()) == []


def test_force_never_replaces_other_folders(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds more than images and questions"):
        write(load("demo", "test", 2), tmp_path / "home", "test", force=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


def test_force_never_replaces_images_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "holiday.png").write_text("years of work")
    (tmp_path / "set" / "train.jsonl").write_text("{}")
    with pytest.raises(InputError, match="holds more than images and questions"):
        write(load("demo", "test", 2), tmp_path / "set", "test", force=True)
    assert (tmp_path / "set" / "images" / "holiday.png").read_text() == "years of work"


def test_what_a_kill_left_is_cleared_by_the_next_run(tmp_path: Path) -> None:
    write(load("demo", "test", 2), tmp_path / "set", "test")
    (OwnFolder(tmp_path / ".set.partial").make() / "fresh").mkdir()
    write(load("demo", "test", 3), tmp_path / "set", "test", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    write(load("demo", "test", 2), tmp_path / "set", "test")
    (tmp_path / "set").rename(OwnFolder(tmp_path / ".set.partial").make() / "old")
    with pytest.raises(InputError, match="set exists"):
        write(load("demo", "test", 3), tmp_path / "set", "test")
    assert len((tmp_path / "set" / "test.jsonl").read_text().splitlines()) == 2


def test_a_link_is_not_replaced(tmp_path: Path) -> None:
    write(load("demo", "test", 2), tmp_path / "real", "test")
    (tmp_path / "set").symlink_to("real")
    with pytest.raises(InputError, match="is a symbolic link"):
        write(load("demo", "test", 2), tmp_path / "set", "test", force=True)
    assert (tmp_path / "set").is_symlink()
