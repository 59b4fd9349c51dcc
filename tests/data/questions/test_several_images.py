"""Several images for a question, in every form that can give them; each goes where its mark stands."""

import base64
import csv
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.material import Asked, expected, lines, put_images
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.data.sample import MARK, Sample

Row = dict[str, Any]
PAIRS = ((0, 1), (2, 3), (4, 5))


def rows(asked: Sequence[Asked], image: Callable[[Asked], Any]) -> list[Row]:
    return [{"images": [image(asked[number]) for number in pair], **asked[pair[0]].row} for pair in PAIRS]


def json_list(folder: Path, asked: Sequence[Asked]) -> Path:
    put_images(folder, asked)
    (folder / "d.json").write_text(json.dumps(rows(asked, lambda one: one.name)))
    return folder / "d.json"


def csv_cells(folder: Path, asked: Sequence[Asked]) -> Path:
    put_images(folder, asked)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["images", "question", "answer", "kind"])
        writer.writeheader()
        writer.writerows({**row, "images": json.dumps(row["images"])} for row in rows(asked, lambda one: one.name))
    return folder


def table(folder: Path, made: list[Row]) -> Path:
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(made), folder / "d.parquet", row_group_size=2)
    return folder / "d.parquet"


def parquet_structs(folder: Path, asked: Sequence[Asked]) -> Path:
    return table(folder, rows(asked, lambda one: {"bytes": one.content, "path": None}))


def parquet_bytes(folder: Path, asked: Sequence[Asked]) -> Path:
    return table(folder, rows(asked, lambda one: one.content))


def parquet_paths(folder: Path, asked: Sequence[Asked]) -> Path:
    path = table(folder, rows(asked, lambda one: one.name))
    put_images(folder, asked)
    return path


def saved(folder: Path, asked: Sequence[Asked]) -> Path:
    made = datasets.Dataset.from_list(rows(asked, lambda one: {"bytes": one.content, "path": None}))
    made.cast_column("images", datasets.Sequence(datasets.Image())).save_to_disk(str(folder))
    return folder


def numbered_members(folder: Path, asked: Sequence[Asked]) -> Path:
    folder.mkdir()
    with tarfile.open(folder / "d.tar", "w") as archive:
        for number, pair in enumerate(PAIRS):
            parts = {f"{number}.{place}.{asked[one].name[-3:]}": asked[one].content for place, one in enumerate(pair)}
            parts[f"{number}.json"] = json.dumps(asked[pair[0]].row).encode()
            for name, content in parts.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return folder / "d.tar"


def llava(folder: Path, asked: Sequence[Asked]) -> Path:
    put_images(folder, asked)
    made = [
        {
            "image": row["images"],
            "kind": row["kind"],
            "conversations": [
                {"from": "human", "value": f"<image>\n<image>\n{row['question']}"},
                {"from": "gpt", "value": row["answer"]},
            ],
        }
        for row in rows(asked, lambda one: one.name)
    ]
    return lines(folder / "d.jsonl", made)


def messages(content: Callable[[Row], Any]) -> Callable[[Path, Sequence[Asked]], Path]:
    def form(folder: Path, asked: Sequence[Asked]) -> Path:
        put_images(folder, asked)
        made = []
        for row in rows(asked, lambda one: one.name):
            turns = [{"role": "user", "content": content(row)}, {"role": "assistant", "content": row["answer"]}]
            kept = {"images": row["images"]} if "name" not in str(content(row)) else {}
            made.append({"messages": turns, "type": row["kind"], **kept})
        return lines(folder / "d.jsonl", made)

    return form


def url(name: str) -> Row:
    return {"type": "image_url", "image_url": {"url": name}}


FORMS: dict[str, Callable[[Path, Sequence[Asked]], Path]] = {
    form.__name__: form
    for form in (json_list, csv_cells, parquet_structs, parquet_bytes, parquet_paths, saved, numbered_members, llava)
} | {
    "messages_text": messages(lambda row: row["question"]),
    "messages_marks": messages(lambda row: f"<image><image>{row['question']}"),
    "messages_trl": messages(lambda row: [{"type": "image"}] * 2 + [{"type": "text", "text": row["question"]}]),
}


def seen(samples: Sequence[Sample]) -> list[tuple[str, str, str, list[bytes]]]:
    return [(one.question, one.answer, one.kind, [image.tobytes() for image in one.load_images()]) for one in samples]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(tmp_path: Path, asked: list[Asked], form: str) -> None:
    found = data.load(str(FORMS[form](tmp_path / "d", asked)), "test")
    plain = expected(asked)
    wanted = [(*plain[one][:3], [plain[one][3], plain[other][3]]) for one, other in PAIRS]
    assert [
        (one.question.replace(MARK, "").strip(), *rest) for one, (_, *rest) in zip(found, seen(found), strict=True)
    ] == wanted
    assert len({one.id for one in found}) == 3


@pytest.mark.parametrize("form", ["json_list", "parquet_structs", "saved", "numbered_members"])
def test_the_last_image_counts_too(tmp_path: Path, asked: list[Asked], form: str) -> None:
    changed = [*asked[:5], asked[0]]
    found = [
        fingerprint(data.load(str(FORMS[form](tmp_path / name, some)), "test"))
        for name, some in (("a", asked), ("b", changed))
    ]
    assert found[0] != found[1]


@pytest.fixture
def folder(tmp_path: Path, asked: list[Asked]) -> Path:
    put_images(tmp_path, asked)
    return tmp_path


def load(folder: Path, *made: Row) -> Sequence[Sample]:
    return data.load(str(lines(folder / "d.jsonl", made)), "test")


def user(content: Any, **more: Any) -> Row:
    return {"role": "user", "content": content, **more}


def model(content: Any) -> Row:
    return {"role": "assistant", "content": content}


def names(sample: Sample) -> list[str]:
    return [image.name for image in sample.images if isinstance(image, Path)]


def test_parts_say_where_their_images_are(folder: Path, asked: list[Asked]) -> None:
    packed = "data:image/png;base64," + base64.b64encode(asked[0].content).decode()
    parts = [
        url(packed),
        url(f"file://{folder}/001.jpg"),
        {"type": "image", "image": "002.png"},
        {"type": "text", "text": "which?"},
    ]
    (found,) = load(folder, {"messages": [user(parts), model([{"type": "text", "text": "one"}])]})
    assert [image.tobytes() for image in found.load_images()] == [one[3] for one in expected(asked[:3])]
    assert (found.question, found.answer) == (3 * MARK + "which?", "one")


def test_marks_stand_where_the_images_go(folder: Path) -> None:
    row = {"image": ["000.png", "001.jpg"], "answer": "no"}
    found = load(folder, {**row, "question": "Is <image> like <image>?"}, {**row, "question": "Alike?"})
    assert [one.question for one in found] == ["Is <image> like <image>?", "Alike?"]
    assert [names(one) for one in found] == [["000.png", "001.jpg"]] * 2


def test_an_only_image_comes_first_wherever_a_text_has_its_mark(folder: Path) -> None:
    turns = [{"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": "a"}]
    found = load(folder, {"image": "000.png", "conversations": turns * 2})
    assert [(one.question, names(one)) for one in found] == [("What is it?", ["000.png"])] * 2


def test_a_later_question_sees_the_images_that_were_shown_before(folder: Path) -> None:
    turns = [user("<image> a?"), model("1"), user("b?"), model("2"), user("<image> or <image> c?"), model("3")]
    found = load(folder, {"images": ["000.png", "001.jpg", "002.png"], "messages": turns})
    assert [one.question for one in found] == ["<image> a?", "b?", "<image><image> or <image> c?"]
    assert [names(one) for one in found] == [["000.png"], ["000.png"], ["000.png", "001.jpg", "002.png"]]


def test_the_system_and_kinds(folder: Path) -> None:
    turns = [{"role": "system", "content": "Be short."}, user("a?", kind="count"), model("1"), user("b?"), model("2")]
    found = load(folder, {"image": "000.png", "messages": turns, "type": "colour"})
    assert [(one.question, one.system, one.kind) for one in found] == [
        ("a?", "Be short.", "count"),
        ("b?", "Be short.", "colour"),
    ]


def test_questions_in_columns_come_before_messages(folder: Path) -> None:
    row = {"image": "000.png", "messages": [user("a?"), model("1")], "question": "b?", "answer": "2"}
    assert [one.question for one in load(folder, row)] == ["b?"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"images": ["a", "b"], "question": "<image>?", "answer": "x"}, "line 1: 1 marks <image> for 2 images"),
        ({"images": ["a", "b"], "messages": [user("<image>?"), model("x")]}, "line 1: 1 marks <image> for 2 images"),
        (
            {"messages": [user([{"type": "image"}, {"type": "text", "text": "?"}]), model("x")]},
            "1 marks <image> for 0 images",
        ),
        ({"messages": [user([{"type": "video"}]), model("x")]}, "line 1: a part of a turn is 'video'"),
        ({"messages": [user(3), model("x")]}, "line 1: conversations must .*; a turn holds int"),
        (
            {"messages": [{"role": "tool", "content": "x"}, model("x")]},
            "line 1: conversations must .*; a turn is from 'tool'",
        ),
        ({"messages": [user("a"), model([url("a.png")])]}, "line 1: a turn of assistant holds an image"),
        ({"messages": [user("a"), user("b"), model("x")]}, "line 1: turns must alternate, human, gpt"),
        ({"messages": [user([url("http://x/a.png")]), model("x")]}, "'http://x/a.png' is not an image"),
        ({"messages": [user([url("data:image/png;base64,%%")]), model("x")]}, "is not an image"),
        ({"messages": [user("<image>a?"), model("x")]}, "None is not an image"),
    ],
)
def test_what_cannot_be_used_is_named(folder: Path, row: Row, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(load(folder, row))


def test_a_last_question_without_an_answer_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"image": "000.png", "messages": [user("a?"), model("1")]}
    open_end = {**row, "messages": [*row["messages"], user("b?")]}
    found = load(folder, row, open_end, open_end)
    assert [one.question for one in found] == ["a?"] * 3
    (told,) = caplog.messages
    assert told.endswith(f"d.jsonl: left out 2 last questions without an answer, the first in line 2 of {folder}/d.jsonl")
    caplog.clear()
    data.load(f"{folder}/d.jsonl,{folder}/d.jsonl", "test", 6)
    assert len(caplog.messages) == 2, "each source tells it once, though a mixture looks at it twice"
