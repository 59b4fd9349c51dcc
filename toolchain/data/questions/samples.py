"""From rows to samples: one per question, several for a conversation."""

import base64
import binascii
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.forms.rows import Rows
from vlmc.toolchain.data.questions.columns import choose
from vlmc.toolchain.data.questions.conversations import Asked, count_questions
from vlmc.toolchain.data.sample import Sample, SampleImage, Stored
from vlmc.toolchain.data.sequences.lazy import LazySamples
from vlmc.toolchain.data.sources import Source


class RowSamples(LazySamples):
    """The samples of rows, up to a limit, read as their source says.

    `unanswered` are the rows whose conversation ends with a question without an answer.

    Raises:
        InputError: a column is missing, or a conversation is invalid; other rows are checked when they are accessed.
    """

    def __init__(self, rows: Rows, source: Source, limit: int | None) -> None:
        self.rows, self.source = rows, source
        self.columns = columns = choose(rows, source.columns, source.name)
        self.unanswered = array("q")
        self._places: array[int] | None = None  # (row, number of its question) of every sample; None: one per row
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
        asked, folder = self._asked(row, values)[number or 0], self.source.folder or self.rows.folder(row)
        return Sample(
            name if number is None else f"{name}-{number}",
            tuple(image_of(image, folder) for image in asked.images or (None,) * self._lacks_image),
            asked.question,
            asked.answer,
            asked.kind or _text(values, self.columns.kind) or "all",
            asked.system,
            asked.references,
        )

    @property
    def _lacks_image(self) -> bool:
        """Whether a row without an image is not as it should be: a conversation may be about none."""
        return self.columns.conversations is None and self.columns.image is not None

    def _find_questions(self, column: str, limit: int | None) -> "array[int]":
        places = array("q")
        for row in range(len(self.rows)):
            if limit is not None and len(places) >= 2 * limit:
                break
            count, more = self._count(row, self.rows.read(row, (column,)).get(column))
            for number in range(count):
                places.extend((row, number))
            if more:
                self.unanswered.append(row)
        return places

    def _count(self, row: int, conversation: Any) -> tuple[int, bool]:
        try:
            return count_questions(conversation)
        except ValueError as error:
            raise self._broken(row, error) from None

    def _asked(self, row: int, values: Mapping[str, Any]) -> list[Asked]:
        try:
            return self.columns.asked(values, self.source.prompt)
        except ValueError as error:
            raise self._broken(row, error) from None

    def _broken(self, row: int, error: ValueError) -> InputError:
        place = self.rows.place(row)
        return InputError(f"{place.source}, {place.row}: {error}")


class Absent(Stored):
    """A value that is not an image, where a row should have one."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return f"a list of {len(self._value)}" if isinstance(self._value, list) else repr(self._value)[:40]

    def read(self) -> bytes:
        raise InputError(f"{self} is not an image")


def image_of(value: Any, folder: Path) -> SampleImage:
    """Return a row's image; paths are relative to the folder, and a value that is not an image fails when it is opened."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return _named(value, folder)
    return value if isinstance(value, (Image.Image, bytes, Stored)) else Absent(value)


def _named(name: str, folder: Path) -> SampleImage:
    """Return the image of a path or a URL: `data:` contains it, `file:` is a path, others are not fetched."""
    scheme = name.partition(":")[0].casefold()
    if scheme == "data":
        head, _, content = name.partition(",")
        try:
            return base64.b64decode(content, validate=True) if head.endswith(";base64") else Absent(name)
        except binascii.Error:
            return Absent(name)
    if scheme == "file":
        return Path(unquote(urlsplit(name).path))
    return Absent(name) if scheme in ("http", "https") else folder / name


def _text(values: Mapping[str, Any], column: str | None) -> str:
    value = None if column is None else values.get(column)
    return "" if value is None else str(value)
