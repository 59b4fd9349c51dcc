"""Data sets read by Hugging Face's `datasets`: a hub id, downloaded or streamed, or a folder of `save_to_disk`."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetNotFoundError, DatasetsError

from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain.data.forms.parquet import bytes_of, holds_bytes, is_list, numbered
from vlmc.toolchain.data.forms.rows import Place, Rows
from vlmc.toolchain.data.sample import Stored
from vlmc.toolchain.data.sources import Source

BUFFER = 1_000  # rows of a stream's shuffle buffer


def open_hub(source: Source, split: str) -> Rows:
    """Open a data set of the hub, downloaded once and then read from disk.

    Raises:
        InputError: there is no such data set, configuration or split.
        EnvironmentLacks: the data set is not cached and the hub cannot be reached.
    """
    with _told(source):
        return DatasetRows(source.name, datasets.load_dataset(source.name, source.config, split=split))


def stream_hub(source: Source, split: str, limit: int, seed: int) -> Rows:
    """Stream `limit` rows of a data set of the hub, shuffled in a buffer, without downloading all of it.

    Raises:
        InputError, EnvironmentLacks: as `open_hub`.
    """
    with _told(source):
        stream = datasets.load_dataset(source.name, source.config, split=split, streaming=True)
        tables = stream.shuffle(seed=seed, buffer_size=BUFFER).with_format("arrow")
        return TakenRows(source.name, [table.to_pylist()[0] for table in islice(tables, limit)])


def open_saved(folder: Path, source: Source, split: str) -> Rows:
    """Open a folder that `save_to_disk` wrote.

    Raises:
        InputError: it cannot be read or has no such split.
    """
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, DatasetsError) as error:
        raise InputError(f"{folder} cannot be read: {_one_line(error)}") from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise InputError(f"{folder} has no split {split}: it has {', '.join(found)}; choose one with --split")
        found = found[split]
    elif source.split is not None:
        raise InputError(f"{folder} has no splits: leave --split out")
    return DatasetRows(str(folder), found)


class DatasetRows(Rows):
    """The rows of an Arrow data set on disk; columns of bytes are read only when an image is opened."""

    def __init__(self, name: str, dataset: Any) -> None:
        self.name, self._rows = name, dataset.with_format("arrow")
        self.columns = tuple(dataset.column_names)
        schema = dataset.features.arrow_schema
        self._bytes = frozenset(field.name for field in schema if holds_bytes(field.type))
        self._lists = frozenset(field.name for field in schema if is_list(field.type))
        self._texts = self._rows.select_columns([column for column in self.columns if column not in self._bytes])
        self._labels = _label_names(dataset.features)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int, columns: Collection[str]) -> dict[str, Any]:
        found = self._texts[index : index + 1].to_pylist()[0] if self._texts.column_names else {}
        for column in self._labels.keys() & found.keys():
            found[column] = self._labels[column](found[column])
        return found | {column: self._kept(index, column) for column in self._bytes.intersection(columns)}

    def _kept(self, index: int, column: str) -> "Kept | list[Kept]":
        if column not in self._lists:
            return Kept(self, index, column)
        held = self._cell(index, column).values
        return [Kept(self, index, column, number) for number in range(len(held) if held is not None else 0)]

    def image(self, index: int, column: str, number: int | None) -> Any:
        """Return the value of a row's image column, or of one image in its list."""
        held = self._cell(index, column)
        return (held if number is None else held[number]).as_py()

    def _cell(self, index: int, column: str) -> Any:
        return self._rows[index : index + 1].column(column)[0]

    def place(self, index: int) -> Place:
        return Place(self.name, f"row {index}")

    def folder(self, index: int) -> Path:
        return Path()


class Kept(Stored):
    """The bytes of an image in a row; `number` is its place in a column of lists."""

    def __init__(self, rows: DatasetRows, index: int, column: str, number: int | None = None) -> None:
        self._rows, self._index, self._column, self._number = rows, index, column, number

    def __str__(self) -> str:
        return f"{numbered(self._column, self._number)} in row {self._index} of {self._rows.name}"

    def read(self) -> bytes:
        return bytes_of(self._rows.image(self._index, self._column, self._number), Path(), str(self))


class TakenRows(Rows):
    """Rows taken from a stream, in memory; images are the bytes of their files."""

    def __init__(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.name, self._rows = name, rows
        self.columns = tuple(rows[0]) if rows else ()

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int, columns: Collection[str]) -> dict[str, Any]:
        return self._rows[index]

    def place(self, index: int) -> Place:
        return Place(self.name, f"row {index} of the stream")

    def folder(self, index: int) -> Path:
        return Path()


@contextmanager
def _told(source: Source) -> Iterator[None]:
    """Turn the errors of `datasets` into one line."""
    try:
        yield
    except DatasetNotFoundError:
        raise InputError(f"no data set called {source.name} here or on the hub, or you have no access to it") from None
    except (ValueError, TypeError, DatasetsError) as error:
        raise InputError(f"{source.name}: {_one_line(error)} (--split NAME, {source.name}?config=NAME)") from None
    except OSError:
        raise EnvironmentLacks(
            f"no data set at {source.name}, and the hub cannot be reached: give a file or a folder"
        ) from None


def _label_names(features: Any) -> dict[str, Callable[[int], str]]:
    return {name: kind.int2str for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
