"""Every form of data set gives the same six samples."""

import json
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import material
from tests.data.material import FORMS, Asked, expected, lines, put_pictures, seen
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.cli.main import explain
from vlmc.toolchain.settings import DataSettings


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    return material.six(tmp_path_factory.mktemp("six"))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(tmp_path: Path, asked: list[Asked], form: str) -> None:
    found = data.load(str(FORMS[form](tmp_path / "d", asked)), "test")
    assert seen(found) == expected(asked)
    assert seen([found[index] for index in (4, 0, -1)]) == [expected(asked)[index] for index in (4, 0, 5)], "at random"
    assert seen(found[2:4]) == expected(asked)[2:4]
    assert len({one.id for one in found}) == 6


@pytest.mark.parametrize("form", FORMS)
def test_a_count_takes_the_first(tmp_path: Path, asked: list[Asked], form: str) -> None:
    source = str(FORMS[form](tmp_path / "d", asked))
    for check in (False, True):
        assert seen(data.load(source, "test", 3, check=check)) == expected(asked)[:3]
        with pytest.raises(InputError, match="holds 6 samples, 7 were asked for"):
            data.load(source, "test", 7, check=check)


@pytest.mark.parametrize("kind", [pa.binary(), pa.null()])
def test_a_parquet_struct_may_hold_a_path(tmp_path: Path, asked: list[Asked], kind: pa.DataType) -> None:
    put_pictures(tmp_path / "pictures", asked)
    made = material.table(asked, lambda one: {"bytes": None, "path": f"pictures/{one.name}"})
    pictures = made["image"].cast(pa.struct([("bytes", kind), ("path", pa.string())]))
    pq.write_table(made.set_column(0, "image", pictures), tmp_path / "d.parquet")
    assert seen(data.load(str(tmp_path / "d.parquet"), "test")) == expected(asked)


def test_pictures_may_lie_elsewhere(tmp_path: Path, asked: list[Asked]) -> None:
    path = material.conversations(tmp_path / "texts", asked)
    for one in asked:
        (tmp_path / "texts" / one.name).unlink()
    put_pictures(tmp_path / "pictures", asked)
    assert seen(data.load(f"{path}?folder={tmp_path}/pictures", "test")) == expected(asked)


def test_a_byte_order_mark_is_no_text(tmp_path: Path, asked: list[Asked]) -> None:
    for form in (material.conversations, material.conversation_list, material.image_folder):
        form(tmp_path, asked)
    for name in ("data.jsonl", "data.json", "metadata.jsonl"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert seen(data.load(str(path), "test")) == expected(asked)


# splits


def test_a_folder_has_the_splits_that_its_files_are_named_after(tmp_path: Path, asked: list[Asked]) -> None:
    folder = str(material.parquet_folder(tmp_path / "d", asked))
    assert len(data.load(folder, "train")) == 1
    assert len(data.load(DataSettings(data=folder, split="test"), "train")) == 6
    assert len(data.load(f"{folder}?split=test", "train")) == 6
    with pytest.raises(InputError, match=r"has no split validation: it has test, train; choose one with --split"):
        data.load(folder, "validation")
    with pytest.raises(InputError, match="has no split secret: it has test, train"):
        data.load(f"{folder}?split=secret", "test")


def test_split_folders_of_an_image_folder(tmp_path: Path, asked: list[Asked]) -> None:
    for split, part in (("train", asked[:2]), ("val", asked[2:])):
        put_pictures(tmp_path / split, part)
        lines(tmp_path / split / "metadata.jsonl", [{"file_name": one.name, **one.row} for one in part])
    assert seen(data.load(str(tmp_path), "train")) == expected(asked)[:2]
    assert seen(data.load(f"{tmp_path}?split=validation", "train")) == expected(asked)[2:]


def test_metadata_of_several_folders_is_one_data_set(tmp_path: Path, asked: list[Asked]) -> None:
    for name, part in (("a", asked[:2]), ("b", asked[2:])):
        put_pictures(tmp_path / name, part)
        lines(tmp_path / name / "metadata.jsonl", [{"file_name": one.name, **one.row} for one in part])
    assert seen(data.load(str(tmp_path), "train")) == expected(asked)


def test_a_file_without_splits_refuses_one(tmp_path: Path, asked: list[Asked]) -> None:
    for source in (material.one_tar(tmp_path, asked), material.tar_folder(tmp_path / "f", asked)):
        with pytest.raises(InputError, match="has no split train: leave --split out"):
            data.load(f"{source}?split=train", "test")


# columns


def vqa(folder: Path, asked: Sequence[Asked], **row: object) -> str:
    put_pictures(folder, asked)
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
    put_pictures(tmp_path, asked)
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
        ({"q": "a"}, None, r"cannot tell which columns .* they are image, q; name them, as in --columns image=img"),
        ({"question": "a"}, None, "they are image, question; name them"),
        ({"q": "a"}, "question=p", r"has no column 'p' \(--columns question=p\): its columns are image, q"),
        ({"q": "a"}, "text=q", "'text' is not one of image, conversations, question, answer, id, kind"),
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


# damaged files


def test_a_damaged_list_gives_the_entry(tmp_path: Path, asked: list[Asked]) -> None:
    path = material.conversation_list(tmp_path, asked)
    text = path.read_text()
    for broken, message in (
        (text[: text.index("003.jpg")], "entry 3: no valid JSON"),
        (text.replace('"image": "003.jpg",', '"image": "003.jpg"', 1), "entry 3: no valid JSON"),
        (text + "x", "entry 6: no valid JSON .text behind"),
        ("[{}, 3", "entry 2: no valid JSON"),
        ("[", "entry 0: no valid JSON"),
    ):
        path.write_text(broken)
        with pytest.raises(InputError, match=message):
            data.load(str(path), "test")


def test_entries_longer_than_the_window_are_found(
    tmp_path: Path, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [replace(one, question=f'é\\"]{{ {one.question} ' * 9) for one in asked]
    path = material.conversation_list(tmp_path, long)
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding="utf-8-sig")
    for chunk in (1, 2, 3, 7, 64, 1000):
        monkeypatch.setattr("vlmc.toolchain.data.json_list.CHUNK", chunk)
        assert [one.question for one in data.load(str(path), "test")] == [one.question.strip() for one in long]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no question"),
        (b"file_name,question,answer\n", "holds no question"),
        (b"file_name,question,answer\na.png,what\n", "line 2: 2 values, but the first line names 3 columns"),
        (b"file_name,question,answer\na.png,x,y\na.png,x\rz,y\n", r"line 3: no valid CSV \(new-line"),
        (b'file_name,question,answer\n"a\nb.png",x,y\na.png,\xff,c\n', "line 4: no UTF-8 text"),
    ],
)
def test_a_damaged_csv_gives_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(data.load(DataSettings(data=str(tmp_path), max_bad="100%"), "test"))


def test_csv_values_may_run_over_lines(tmp_path: Path, asked: list[Asked]) -> None:
    several = [replace(one, question=f'"one", {one.question}\r\n\ntwo') for one in asked]
    assert seen(data.load(str(material.image_folder_csv(tmp_path, several)), "test")) == expected(several)


def test_damaged_parquet_and_tar_files(tmp_path: Path, asked: list[Asked]) -> None:
    whole = material.parquet(tmp_path, asked).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"cut\.parquet cannot be read as Parquet"):
        data.load(str(tmp_path / "cut.parquet"), "test")
    packed = material.one_tar(tmp_path, asked).read_bytes()
    for name, content in (("cut", packed[: len(packed) // 2]), ("zip", b"\x1f\x8b" + packed)):
        (tmp_path / f"{name}.tar").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.tar cannot be read as a tar file"):
            data.load(str(tmp_path / f"{name}.tar"), "test")


def test_a_parquet_text_that_is_no_utf8(tmp_path: Path, asked: list[Asked]) -> None:
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"], pa.binary()).buffers())
    columns = {"image": [asked[0].content], "question": bad, "answer": ["a"]}
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet cannot be read as Parquet: 'utf-8' codec"):
        data.load(str(tmp_path / "d.parquet"), "test")[0]


def test_a_tar_that_is_damaged_in_its_middle_does_not_end_there_in_silence(tmp_path: Path, asked: list[Asked]) -> None:
    put_pictures(tmp_path, asked)
    with tarfile.open(tmp_path / "plain.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for one in asked:
            archive.add(tmp_path / one.name, one.name)
    packed = (tmp_path / "plain.tar").read_bytes()
    header = packed.index(b"003.jpg")
    (tmp_path / "hit.tar").write_bytes(packed[:header] + b"\xff" * 512 + packed[header + 512 :])
    with pytest.raises(InputError, match=rf"hit\.tar is damaged at byte {header}"):
        data.load(str(tmp_path / "hit.tar"), "test")


def test_a_list_of_one_picture_is_a_picture_and_of_two_is_none(tmp_path: Path, asked: list[Asked]) -> None:
    pictures = [{"bytes": one.content, "path": None} for one in asked[:2]]
    for name, held in (("one", pictures[:1]), ("two", pictures)):
        pq.write_table(pa.Table.from_pylist([{"images": held, **asked[0].row}]), tmp_path / f"{name}.parquet")
    assert seen(data.load(str(tmp_path / "one.parquet"), "test")) == expected(asked[:1])
    with pytest.raises(InputError, match="images in row 0 of"):
        data.load(str(tmp_path / "two.parquet"), "test", check=True)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.tar", "./a/b", "d-{0..1}.tar", "d-*.parquet", "", "some,"])
def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no data set at|has no name"):
        data.load(name, "test")


def test_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no data set: no metadata\.jsonl"):
        data.load(str(tmp_path), "test")


@pytest.mark.parametrize(("package", "source"), [("pyarrow", "d.parquet"), ("datasets", "some/thing")])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d.parquet").write_bytes(b"")
    for module in ("parquet", "hub"):
        monkeypatch.delitem(sys.modules, f"vlmc.toolchain.data.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        data.load(source, "test")
    assert explain(caught.value) == (f"{package} is not installed: pip install 'vlmc[data]'", 3)
