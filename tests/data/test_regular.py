"""Devices, pipes and endless patterns where a file should be: refused, not read."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.data.sample import Sample


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "link", "folder", "x" * 300, "a\0b"])
def test_a_row_with_another_path_than_that_of_a_file_is_told(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = pa.array([{"bytes": None, "path": one} for one in ("good.png", name)], kind)
    pq.write_table(pa.table({"image": image, "question": ["a", "b"], "answer": ["c", "d"]}), tmp_path / "rows.parquet")
    found = data.load(str(tmp_path / "rows.parquet"), "test")
    assert found[0].load_image().size == (8, 8)
    with pytest.raises(InputError, match=r"image in row 1 of .* cannot be read"):
        data.load(f"{tmp_path / 'rows.parquet'}", "test", check=True)
    assert fingerprint(found).startswith("2:")
    assert fingerprint([Sample("a", (tmp_path / name,), "b", "c", "d")]) == fingerprint(
        [Sample("a", (tmp_path / "gone",), "b", "c", "d")]
    )


def test_a_link_to_a_device_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "y.jsonl")
    for name in ("x.jsonl", "y.jsonl", "*.jsonl", "."):
        with pytest.raises(InputError, match=r"no data set|holds no data set"):
            data.load(str(tmp_path / name), "test")


@pytest.mark.parametrize(
    "pattern", ["good{1..30000000}.jsonl", "*{1..30000000}.jsonl", "{9..1}.jsonl", "{0..9}" * 9 + "*", "{1,2}" * 30 + "*"]
)
def test_a_pattern_of_endless_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vlmc.toolchain.data.forms.places.MOST_FILES", 500)
    with pytest.raises(InputError, match=r"no data set at .*: (no file at|it stands for more than 500 files)"):
        data.load(pattern, "test")


def test_more_samples_than_the_demo_draws_are_refused() -> None:
    with pytest.raises(InputError, match=r"the demo cannot draw 99999999 samples: .* at most 1,000,000"):
        data.load("demo", "train", 99_999_999)
