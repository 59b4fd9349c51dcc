"""Parquet files: texts are read a row group at a time, an image only when it is opened.

Read with pyarrow: `datasets` would copy a whole file into its cache before the first row, its streams have no random access,
and its errors do not name the row.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.forms.rows import Place, Rows
from vlmc.toolchain.data.sample import Stored


class Group(NamedTuple):
    """A row group: its file, its number, and the number of its first row in the file."""

    path: Path
    number: int
    first: int


class ParquetRows(Rows):
    """The rows of Parquet files, one file after the other; columns of bytes are read only when an image is opened.

    The texts of the last eight row groups and the images of the last one stay in memory.
    """

    def __init__(self, paths: Sequence[Path], limit: int | None) -> None:
        self.columns, self._bytes, self._lists = _columns(paths[0])
        self._groups: list[Group] = []
        self._ends: list[int] = []
        for path in paths:
            if limit is None or len(self) < limit:
                self._add(path)
        self._cache()

    def _cache(self) -> None:
        self._texts = lru_cache(maxsize=8 * len(self.columns))(_read)
        self._images = lru_cache(maxsize=1)(_read)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_texts", "_images")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._cache()

    def _add(self, path: Path) -> None:
        with _told(path):
            metadata = pq.read_metadata(path)
            counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        first = 0
        for number, count in enumerate(counts):
            self._groups.append(Group(path, number, first))
            self._ends.append(len(self) + count)
            first += count

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, index: int, columns: Collection[str]) -> dict[str, Any]:
        group, inner = self._find(index)
        found = {name: self._cells(index, name) for name in self._bytes.intersection(columns)}
        with _told(group.path):
            return found | {name: self._texts(group, name)[inner].as_py() for name in columns if name not in found}

    def _cells(self, index: int, column: str) -> "Cell | list[Cell]":
        """Return a row's images, unread; only the length of a list is read."""
        if column not in self._lists:
            return Cell(self, index, column)
        group, _ = self._find(index)
        with _told(group.path):
            return [Cell(self, index, column, number) for number in range(len(self.image(index, column) or ()))]

    def image(self, index: int, column: str) -> Any:
        """Return the value of a row's image column."""
        group, inner = self._find(index)
        return self._images(group, column)[inner].as_py()

    def place(self, index: int) -> Place:
        group, inner = self._find(index)
        return Place(str(group.path), f"row {group.first + inner}")

    def _find(self, index: int) -> tuple[Group, int]:
        number = bisect_right(self._ends, index)
        return self._groups[number], index - (self._ends[number - 1] if number else 0)


class Cell(Stored):
    """The bytes of an image in a row: plain, or in Hugging Face's form, {"bytes": ..., "path": ...}.

    `number` is its place in a column of lists.
    """

    def __init__(self, rows: ParquetRows, index: int, column: str, number: int | None = None) -> None:
        self._rows, self._index, self._column, self._number = rows, index, column, number

    def __str__(self) -> str:
        place = self._rows.place(self._index)
        return f"{numbered(self._column, self._number)} in {place.row} of {place.source}"

    def read(self) -> bytes:
        held = self._rows.image(self._index, self._column)
        return bytes_of(held if self._number is None else held[self._number], self._rows.folder(self._index), str(self))


def numbered(column: str, number: int | None) -> str:
    """Return the name of a column's image in messages, with its number in a list."""
    return column if not number else f"image {number + 1} of {column}"


def bytes_of(value: Any, folder: Path, where: str) -> bytes:
    """Return the bytes of an image cell, read from its path if it has only that.

    Raises:
        InputError: the cell is empty.
    """
    if isinstance(value, dict):
        path = value.get("path")
        value = value.get("bytes") or ((folder / path).read_bytes() if path else None)
    if not isinstance(value, bytes):
        raise InputError(f"{where} is empty")
    return value


def _columns(path: Path) -> tuple[tuple[str, ...], frozenset[str], frozenset[str]]:
    """Return the names of all columns, of those of bytes, and of those of lists."""
    with _told(path):
        schema = pq.read_schema(path)
        some = frozenset(field.name for field in schema if holds_bytes(field.type))
        return tuple(schema.names), some, frozenset(field.name for field in schema if is_list(field.type))


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def holds_bytes(kind: Any) -> bool:
    """Whether an Arrow type is bytes, a struct with a field of bytes, or a list of those."""
    if is_list(kind):
        return holds_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _read(group: Group, column: str) -> Any:
    with _told(group.path), pq.ParquetFile(group.path) as file:
        return file.read_row_group(group.number, columns=[column]).column(column)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn the errors of pyarrow into one line."""
    try:
        yield
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:200]}") from None
