import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmc.runtime.errors import InputError
from vlmc.toolchain import builtin, data

TURNS = [{"from": "human", "value": "<image>\nwhat digit?"}, {"from": "gpt", "value": " seven "}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (10, 6), "red").save(tmp_path / "p.png")
    return tmp_path


def write(path: Path, entries: list[Any]) -> str:
    if path.suffix == ".json":
        path.write_text(json.dumps(entries))
    else:
        path.write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n")
    return str(path)


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_both_forms_read_alike(folder: Path, name: str) -> None:
    entry = {"id": "a", "image": "p.png", "kind": "read", "conversations": TURNS}
    (sample,) = data.load(write(folder / name, [entry]), "test")
    assert (sample.question, sample.answer, sample.kind) == ("what digit?", "seven", "read")
    assert sample.load_image().size == (10, 6)


def test_each_pair_of_turns_is_a_question(folder: Path) -> None:
    entry = {
        "image": "p.png",
        "conversations": [*TURNS, {"from": "human", "value": "sure?"}, {"from": "gpt", "value": "yes"}],
    }
    found = data.load(write(folder / "d.jsonl", [entry, entry]), "test")
    assert [sample.answer for sample in found] == ["seven", "yes"] * 2
    assert len({sample.id for sample in found}) == 4


def test_count_takes_the_first(folder: Path) -> None:
    entry = {"image": "p.png", "conversations": TURNS}
    path = write(folder / "d.jsonl", [entry] * 5)
    assert len(data.load(path, "train", 3)) == 3
    with pytest.raises(InputError, match="has only 5 of the 6 samples that are needed"):
        data.load(path, "train", 6)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (7, "line 2: an entry must be an object"),
        (
            {"conversations": TURNS},
            "1 unreadable image, .* 1% of 2 allows 0: d.jsonl line 2-0: None is not an image",
        ),
        ({"image": "../p.jpg", "conversations": TURNS}, "d.jsonl line 2-0: no image at .*p.jpg"),
        ({"image": "p.png", "conversations": TURNS[:1]}, "line 2: conversations must be a list"),
        ({"image": "p.png", "conversations": [*TURNS[::-1]]}, "line 2: turns must alternate, human, gpt"),
        ({"image": "p.png", "conversations": [TURNS[0], {"from": "gpt", "value": " "}]}, "no answer may be empty"),
    ],
)
def test_a_broken_entry_gives_its_line(folder: Path, entry: Any, message: str) -> None:
    path = write(folder / "d.jsonl", [{"image": "p.png", "conversations": TURNS}, entry])
    with pytest.raises(InputError, match=message):
        list(data.load(path, "test"))


def test_what_demo_data_writes_is_what_the_demo_asks(tmp_path: Path) -> None:
    path = builtin.data_sets()["demo"].write(tmp_path / "out", "test", 20)
    written, drawn = data.load(str(path), "test"), data.load("demo", "test", 20)
    for one, other in zip(written, drawn, strict=True):
        assert (one.question, one.answer, one.kind) == (other.question, other.answer, other.kind)
        assert one.load_image().tobytes() == other.load_image().tobytes()
