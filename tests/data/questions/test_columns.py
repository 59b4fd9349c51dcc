"""Which columns hold the image, the question and the answer, guessed or named."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.data.material import Asked, expected, lines, put_images, seen
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.settings import DataSettings


def vqa(folder: Path, asked: Sequence[Asked], **row: object) -> str:
    put_images(folder, asked)
    return str(lines(folder / "d.jsonl", [{"image": one.name, **row} for one in asked]))


def test_the_most_frequent_answer_is_taken(tmp_path: Path, asked: list[Asked]) -> None:
    for answers, most in (
        (["two", "2", "2"], "2"),
        (["b", "a", "a", "b"], "b"),
        ([{"answer": "no", "answer_id": 1}, {"answer": "yes", "answer_id": 2}, {"answer": "yes", "answer_id": 3}], "yes"),
        ({"answer": ["x", "y", "y"], "answer_id": [1, 2, 3]}, "y"),
        ({"text": ["only"], "answer_start": [3]}, "only"),
        (7, "7"),
    ):
        (found,) = data.load(vqa(tmp_path, asked[:1], question=" what? ", answers=answers), "test")
        assert (found.question, found.answer) == ("what?", most)


def test_a_caption_answers_the_prompt(tmp_path: Path, asked: list[Asked]) -> None:
    source = vqa(tmp_path, asked[:1], caption=["a seven", "a digit"])
    (found,) = data.load(source, "test")
    assert (found.question, found.answer) == ("Describe the image.", "a seven")
    (found,) = data.load(DataSettings(data=source, caption_prompt="What is it?"), "test")
    assert found.question == "What is it?"
    (found,) = data.load(f"{source}?prompt=What+is+it%3F", "test")
    assert found.question == "What is it?"


def test_columns_of_other_names(tmp_path: Path, asked: list[Asked]) -> None:
    put_images(tmp_path, asked)
    rows = [{"photo": one.name, "q": one.question, "a": one.answer, "type": one.kind, "caption": "no"} for one in asked]
    path = lines(tmp_path / "d.jsonl", rows)
    named = "image=photo, question=q, answer=a, kind=type"
    assert seen(data.load(DataSettings(data=str(path), columns=named), "test")) == expected(asked)
    assert seen(data.load(f"{path}?image=photo&question=q&answer=a&kind=type", "test")) == expected(asked)
    assert [one.answer for one in data.load(f"{path}?image=photo", "test")] == ["no"] * 6


def test_what_the_user_names_wins_over_what_is_guessed(tmp_path: Path, asked: list[Asked]) -> None:
    source = vqa(tmp_path, asked[:1], q="why?", caption="a cat", a="so", conversations=asked[1].turns)
    for columns, turn in (
        ("question=q", ("why?", "a cat")),
        ("answer=a", ("Describe the image.", "so")),
        ("question=q,answer=a", ("why?", "so")),
        ("kind=a", (asked[1].question, asked[1].answer)),
    ):
        (found,) = data.load(DataSettings(data=source, columns=columns), "test")
        assert (found.question, found.answer) == turn


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"q": "a"}, None, r"cannot tell which of the columns image, q are .*: name them, as in --columns image=img"),
        ({"question": "a"}, None, "of the columns image, question are .*: name them"),
        ({"q": "a"}, "question=p", r"has no column 'p' \(--columns question=p\): its columns are image, q"),
        ({"q": "a"}, "text=q", "'text' is not one of image, conversations, question, answer, references, id, kind"),
        ({"question": "a", "answer": None}, None, "line 1: answer is empty"),
        ({"question": " ", "answer": "b"}, None, "line 1: question is empty"),
    ],
)
def test_columns_that_are_not_there(
    tmp_path: Path, asked: list[Asked], row: dict[str, object], columns: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(data.load(DataSettings(data=vqa(tmp_path, asked[:1], **row), columns=columns), "test"))


def test_texts_of_a_tar_are_columns(tmp_path: Path, asked: list[Asked]) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "c.tar"), encoder=False) as writer:
        parts = {"PNG": asked[0].content, "seg.png": b"\xff", "txt": b"a cat", "cls": b"3"}
        writer.write({"__key__": "a.b/one", **parts})
    (found,) = data.load(str(tmp_path / "c.tar"), "test")
    assert seen([found])[0][3] == expected(asked)[0][3]
    assert (found.question, found.answer, found.id) == ("Describe the image.", "a cat", "a.b/one")
    (found,) = data.load(f"{tmp_path}/c.tar?answer=cls&prompt=Which class?", "test")
    assert (found.question, found.answer) == ("Which class?", "3")
