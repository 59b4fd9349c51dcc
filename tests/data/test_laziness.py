"""What lies behind the samples that are asked for is not read."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import material
from tests.data.material import Asked, expected, lines, put_images, seen
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.forms import parquet
from vlmc.toolchain.data.sample import Sample


def cut(path: Path, behind: bytes) -> str:
    """Cut a file off a little behind where something first stands."""
    content = path.read_bytes()
    path.write_bytes(content[: content.index(behind) + len(behind)])
    return str(path)


def test_text_files_are_read_as_far_as_needed(tmp_path: Path, asked: list[Asked]) -> None:
    for number, form in enumerate((material.conversations, material.conversation_list, material.vqa_lines)):
        source = cut(form(tmp_path / str(number), asked), b"004.png")
        assert seen(data.load(source, "test", 3)) == expected(asked)[:3]
        with pytest.raises(InputError, match="invalid JSON"):
            list(data.load(source, "test"))


def test_tar_files_are_read_as_far_as_needed(tmp_path: Path, asked: list[Asked]) -> None:
    source = cut(material.one_tar(tmp_path, asked), b"some/004.png")
    assert seen(data.load(source, "test", 3)) == expected(asked)[:3]
    folder = material.tar_folder(tmp_path / "shards", asked)
    (folder / "shard-002.tar").write_bytes(b"no tar")
    assert seen(data.load(str(folder), "test", 4)) == expected(asked)[:4]
    with pytest.raises(InputError, match=r"shard-002\.tar cannot be read"):
        data.load(str(folder), "test", 5)


def test_parquet_files_are_read_as_far_as_needed(tmp_path: Path, asked: list[Asked]) -> None:
    folder = material.parquet_folder(tmp_path, asked) / "data"
    (folder / "test-00001-of-00002.parquet").write_bytes(b"no parquet")
    assert seen(data.load(str(tmp_path), "test", 4)) == expected(asked)[:4]
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        data.load(str(tmp_path), "test")


def test_conversations_are_looked_at_as_far_as_needed(tmp_path: Path, asked: list[Asked]) -> None:
    put_images(tmp_path, asked)
    rows: list[dict[str, Any]] = [{"image": one.name, "conversations": one.turns * 2} for one in asked[:3]]
    source = str(lines(tmp_path / "d.jsonl", [*rows[:2], {**rows[2], "conversations": []}]))
    assert [one.answer for one in data.load(source, "test", 4)] == [asked[number].answer for number in (0, 0, 1, 1)]
    with pytest.raises(InputError, match="line 3: conversations must be a list"):
        data.load(source, "test", 5)


def test_a_file_that_is_gone_by_then_is_named(tmp_path: Path, asked: list[Asked]) -> None:
    path = material.one_tar(tmp_path, asked)
    (first, *_) = data.load(str(path), "test")
    path.unlink()
    with pytest.raises(InputError, match=r"some/000\.png in .*d\.tar cannot be read: No such file"):
        first.load_image()


def test_texts_are_read_without_images(tmp_path: Path, asked: list[Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = material.parquet(tmp_path, asked), []
    plain: Callable[..., Any] = parquet._read
    monkeypatch.setattr(parquet, "_read", lambda group, column: read.append((group.number, column)) or plain(group, column))
    samples = data.load(str(path), "test").samples  # type: ignore[attr-defined]  # below the screen for bad images
    assert [one.question for one in samples] == [one.question for one in asked]
    assert {column for _, column in read} == {"question", "answer", "kind"}
    read.clear()
    samples[4].load_image()
    assert read == [(2, "image")], "the one row group that holds the image"


@pytest.mark.parametrize("form", ["lines", "list", "csv", "tar", "parquet"])
def test_memory_does_not_grow_with_the_images_or_texts(tmp_path: Path, form: str) -> None:
    size, count = 10_000, 100
    big = [Asked(f"{number:03d}.png", bytes(size), f"what? {number} {'x' * size}", "y", "k") for number in range(count)]
    write = {
        "lines": material.vqa_lines,
        "list": material.conversation_list,
        "csv": material.image_folder_csv,
        "tar": material.one_tar,
        "parquet": _parquet,
    }
    source = str(write[form](tmp_path, big))
    tracemalloc.start()
    pool = pa.default_memory_pool().bytes_allocated()
    samples: Any = data.load(source, "test").samples  # type: ignore[attr-defined]
    held: list[Sample] = [samples[index] for index in (0, count - 1, 3)]
    taken = tracemalloc.get_traced_memory()[0] + pa.default_memory_pool().bytes_allocated() - pool
    tracemalloc.stop()
    assert [one.question[:9].strip() for one in held] == ["what? 0 x", "what? 99", "what? 3 x"]
    assert taken < 0.25 * size * count, f"{taken} bytes of {2 * size * count}"


def _parquet(folder: Path, asked: list[Asked]) -> Path:
    rows = material.table(asked, lambda one: one.content)
    pq.write_table(rows, folder / "d.parquet", row_group_size=4, compression="none", use_dictionary=False)
    return folder / "d.parquet"
