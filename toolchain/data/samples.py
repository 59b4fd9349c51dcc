"""From rows to samples: one for a question, several for a conversation."""

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.columns import choose
from vlmc.toolchain.data.lazy import LazySamples
from vlmc.toolchain.data.rows import Rows
from vlmc.toolchain.data.sample import Sample, Stored
from vlmc.toolchain.data.sources import Source


class RowSamples(LazySamples):
    """The samples that rows hold, up to a limit, in the way that their source says.

    Raises:
        InputError: a column is not there, or a conversation is broken; other rows are looked at when they are asked for.
    """

    def __init__(self, rows: Rows, source: Source, limit: int | None) -> None:
        self.rows, self.source = rows, source
        self.columns = columns = choose(rows, source.columns, source.name)
        self._places: array[int] | None = None  # (row, number of the question in it) of every sample; None: one a row
        self._length = len(rows)
        if columns.conversations is not None:
            self._places = self._find_questions(columns.conversations, limit)
            self._length = len(self._places) // 2
        if limit is not None:
            self._length = min(self._length, limit)

    def __len__(self) -> int:
        return self._length

    def at(self, index: int) -> Sample:
        row, number = (index, None) if self._places is None else self._places[2 * index : 2 * index + 2]
        values = self.rows.read(row, self.columns.names)
        place = self.rows.place(row)
        name = _text(values, self.columns.id) or f"{Path(place.source).name} {place.row}"
        question, answer = self._turns(row, values)[number or 0]
        return Sample(
            name if number is None else f"{name}-{number}",
            picture_of(values.get(self.columns.image), self.source.folder or self.rows.folder(row)),
            question,
            answer,
            _text(values, self.columns.kind) or "all",
        )

    def _find_questions(self, column: str, limit: int | None) -> "array[int]":
        places = array("q")
        for row in range(len(self.rows)):
            if limit is not None and len(places) >= 2 * limit:
                break
            for number in range(len(self._turns(row, self.rows.read(row, (column,))))):
                places.extend((row, number))
        return places

    def _turns(self, row: int, values: Mapping[str, Any]) -> list[tuple[str, str]]:
        try:
            return list(self.columns.turns(values, self.source.prompt))
        except ValueError as error:
            place = self.rows.place(row)
            raise InputError(f"{place.source}, {place.row}: {error}") from None


class Absent(Stored):
    """Stands where a row has no picture."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return f"a list of {len(self._value)}" if isinstance(self._value, list) else repr(self._value)[:40]

    def read(self) -> bytes:
        raise InputError(f"{self} is no picture")


def picture_of(value: Any, folder: Path) -> Image.Image | Path | bytes | Stored:
    """Return a row's picture: a path is taken from the folder; what is none fails when it is opened."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return folder / value
    return value if isinstance(value, (Image.Image, bytes, Stored)) else Absent(value)


def _text(values: Mapping[str, Any], column: str | None) -> str:
    value = None if column is None else values.get(column)
    return "" if value is None else str(value)
