"""Every form of data set gives the same six samples, each with its splits."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import material
from tests.data.material import FORMS, Asked, expected, lines, put_images, seen
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.settings import DataSettings


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(tmp_path: Path, asked: list[Asked], form: str) -> None:
    found = data.load(str(FORMS[form](tmp_path / "d", asked)), "test")
    assert seen(found) == expected(asked)
    assert seen([found[index] for index in (4, 0, -1)]) == [expected(asked)[index] for index in (4, 0, 5)], "at random"
    assert seen(found[2:4]) == expected(asked)[2:4]
    assert len({one.id for one in found}) == 6


@pytest.mark.integration
@pytest.mark.parametrize("form", FORMS)
def test_a_count_takes_the_first(tmp_path: Path, asked: list[Asked], form: str) -> None:
    source = str(FORMS[form](tmp_path / "d", asked))
    for check in (False, True):
        assert seen(data.load(source, "test", 3, check=check)) == expected(asked)[:3]
        with pytest.raises(InputError, match="has only 6 of the 7 samples that are needed"):
            data.load(source, "test", 7, check=check)


@pytest.mark.parametrize("kind", [pa.binary(), pa.null()])
def test_a_parquet_struct_may_hold_a_path(tmp_path: Path, asked: list[Asked], kind: pa.DataType) -> None:
    put_images(tmp_path / "images", asked)
    made = material.table(asked, lambda one: {"bytes": None, "path": f"images/{one.name}"})
    images = made["image"].cast(pa.struct([("bytes", kind), ("path", pa.string())]))
    pq.write_table(made.set_column(0, "image", images), tmp_path / "d.parquet")
    assert seen(data.load(str(tmp_path / "d.parquet"), "test")) == expected(asked)


def test_images_may_lie_elsewhere(tmp_path: Path, asked: list[Asked]) -> None:
    path = material.conversations(tmp_path / "texts", asked)
    for one in asked:
        (tmp_path / "texts" / one.name).unlink()
    put_images(tmp_path / "images", asked)
    assert seen(data.load(f"{path}?folder={tmp_path}/images", "test")) == expected(asked)


def test_a_byte_order_mark_is_no_text(tmp_path: Path, asked: list[Asked]) -> None:
    for form in (material.conversations, material.conversation_list, material.image_folder):
        form(tmp_path, asked)
    for name in ("data.jsonl", "data.json", "metadata.jsonl"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert seen(data.load(str(path), "test")) == expected(asked)


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
        put_images(tmp_path / split, part)
        lines(tmp_path / split / "metadata.jsonl", [{"file_name": one.name, **one.row} for one in part])
    assert seen(data.load(str(tmp_path), "train")) == expected(asked)[:2]
    assert seen(data.load(f"{tmp_path}?split=validation", "train")) == expected(asked)[2:]


def test_metadata_of_several_folders_is_one_data_set(tmp_path: Path, asked: list[Asked]) -> None:
    for name, part in (("a", asked[:2]), ("b", asked[2:])):
        put_images(tmp_path / name, part)
        lines(tmp_path / name / "metadata.jsonl", [{"file_name": one.name, **one.row} for one in part])
    assert seen(data.load(str(tmp_path), "train")) == expected(asked)


def test_a_file_without_splits_refuses_one(tmp_path: Path, asked: list[Asked]) -> None:
    for source in (material.one_tar(tmp_path, asked), material.tar_folder(tmp_path / "f", asked)):
        with pytest.raises(InputError, match="has no split train: leave --split out"):
            data.load(f"{source}?split=train", "test")
