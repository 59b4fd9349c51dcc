"""Text without images: plain text files, tables with `image=none`, conversations that are about no image."""

import json
from pathlib import Path

import pytest

from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.forms.text import open_text
from vlmc.toolchain.data.sample import Sample


def pieces(path: Path) -> list[str]:
    rows = open_text(path, None)
    return [rows.read(index, ())["text"] for index in range(len(rows))]


@pytest.mark.parametrize(
    "text",
    [
        "one line",
        "\n\n".join(f"Paragraph {number}: " + "words that go on and on. " * (number % 40) for number in range(60)),
        "no end " * 3_000,
        "字" * 5_000,
        "a" * 2_401 + "é" * 900 + "🙂" * 700,
    ],
    ids=["short", "paragraphs", "one line of words", "characters of three bytes", "no spaces"],
)
def test_pieces_are_the_text_and_none_is_long(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    found = pieces(path)
    assert "".join(found) == text
    assert max(len(piece.encode()) for piece in found) <= 1_200


def test_pieces_end_between_paragraphs_and_say_in_which_line_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(("x " * 400 + "\n\n") * 3)
    rows = open_text(path, None)
    assert [rows.place(index).row for index in range(len(rows))] == ["line 1", "line 3", "line 5"]
    assert all(piece.endswith("\n\n") for piece in pieces(path))


def test_blank_text_and_text_that_is_not_utf8_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text(" \n" * 5_000)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 10)
    with pytest.raises(InputError, match="has no questions"):
        data.load(str(tmp_path / "blank.txt"), "train")
    with pytest.raises(InputError, match="line 1: not UTF-8"):
        data.load(str(tmp_path / "latin.txt"), "train", check=True)[0]


def test_a_text_file_is_samples_of_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("To be, or not to be.")
    (one,) = data.load(str(tmp_path / "a.txt"), "train")
    assert one == Sample("a.txt line 1", (), "", "To be, or not to be.", "all")
    assert one.is_plain


def test_tables_without_images_must_say_so(tmp_path: Path) -> None:
    texts, asked = tmp_path / "texts.jsonl", tmp_path / "asked.jsonl"
    texts.write_text(json.dumps({"text": "some text", "source": "a book"}))
    asked.write_text(json.dumps({"question": "what is 1 + 1 ?", "answer": "two"}))
    for path in (texts, asked):
        with pytest.raises(InputError, match=r"cannot tell which .*\(image=none: there are no images\)"):
            data.load(str(path), "train")
    (text,), (question,) = (data.load(f"{path}?image=none", "train") for path in (texts, asked))
    assert (text.images, text.question, text.answer) == ((), "", "some text")
    assert (question.images, question.question, question.answer) == ((), "what is 1 + 1 ?", "two")
    assert not question.is_plain


def test_a_conversation_about_no_image_is_one_and_a_mark_without_an_image_is_unreadable(tmp_path: Path) -> None:
    def turns(asked: str) -> list[dict[str, str]]:
        return [{"from": "human", "value": asked}, {"from": "gpt", "value": "yes"}]

    path = tmp_path / "mix.json"
    path.write_text(json.dumps([{"id": "a", "conversations": turns("is it ?")}]))
    (one,) = data.load(str(path), "train")
    assert (one.images, one.question) == ((), "is it ?")
    path.write_text(json.dumps([{"id": "a", "conversations": turns("<image>\nis it ?")}]))
    with pytest.raises(InputError, match="is not an image"):
        data.load(str(path), "train", check=True)


def test_a_row_whose_image_is_missing_is_still_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"image": None, "question": "what ?", "answer": "that"}))
    with pytest.raises(InputError, match="is not an image"):
        data.load(str(path), "train", check=True)
