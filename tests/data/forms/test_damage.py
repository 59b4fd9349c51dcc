"""Damaged files, data sets that are not there, and packages that are not installed."""

import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import material
from tests.data.material import Asked, expected, put_images, seen
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.cli.main import explain
from vlmc.toolchain.settings import DataSettings


def test_a_damaged_list_gives_the_entry(tmp_path: Path, asked: list[Asked]) -> None:
    path = material.conversation_list(tmp_path, asked)
    text = path.read_text()
    for broken, message in (
        (text[: text.index("003.jpg")], "entry 3: invalid JSON"),
        (text.replace('"image": "003.jpg",', '"image": "003.jpg"', 1), "entry 3: invalid JSON"),
        (text + "x", "entry 6: invalid JSON .text after"),
        ("[{}, 3", "entry 2: invalid JSON"),
        ("[", "entry 0: invalid JSON"),
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
        monkeypatch.setattr("vlmc.toolchain.data.forms.json_list.CHUNK", chunk)
        assert [one.question for one in data.load(str(path), "test")] == [one.question.strip() for one in long]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no questions"),
        (b"file_name,question,answer\n", "has no questions"),
        (b"file_name,question,answer\na.png,what\n", "line 2: 2 values for 3 columns in the first line"),
        (b"file_name,question,answer\na.png,x,y\na.png,x\rz,y\n", r"line 3: invalid CSV \(new-line"),
        (b'file_name,question,answer\n"a\nb.png",x,y\na.png,\xff,c\n', "line 4: not UTF-8"),
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
    put_images(tmp_path, asked)
    with tarfile.open(tmp_path / "plain.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for one in asked:
            archive.add(tmp_path / one.name, one.name)
    packed = (tmp_path / "plain.tar").read_bytes()
    header = packed.index(b"003.jpg")
    (tmp_path / "hit.tar").write_bytes(packed[:header] + b"\xff" * 512 + packed[header + 512 :])
    with pytest.raises(InputError, match=rf"hit\.tar is damaged at byte {header}"):
        data.load(str(tmp_path / "hit.tar"), "test")


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
        monkeypatch.delitem(sys.modules, f"vlmc.toolchain.data.forms.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        data.load(source, "test")
    assert explain(caught.value) == (f"{package} is not installed: pip install 'vlmc[data]'", 3)
