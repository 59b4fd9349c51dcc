"""Rows: the content of a data set's files, before it is known which column is the question. Each form has a subclass."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple


class Place(NamedTuple):
    """The place of a row, for messages: a file or a data set, and the row in it."""

    source: str
    row: str


class Rows(ABC):
    """Rows with random access, read one at a time."""

    columns: tuple[str, ...]
    """The columns of the first row or of the file's schema."""
    plain = False
    """Whether the rows are pieces of plain text, under `text`."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, columns: Collection[str]) -> dict[str, Any]:
        """Return at least the named columns of a row; images are not read yet.

        Raises:
            InputError: the row is invalid; the message gives its place.
        """

    @abstractmethod
    def place(self, index: int) -> Place:
        """Return the place of a row."""

    def folder(self, index: int) -> Path:
        """Return the folder that a row's image paths are relative to."""
        return Path(self.place(index).source).parent


class ManyRows(Rows):
    """The rows of several files of one form, one file after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = parts
        self.columns = next((part.columns for part in parts if len(part)), ())
        self.plain = all(part.plain for part in parts)
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, index: int, columns: Collection[str]) -> dict[str, Any]:
        part, inner = self._find(index)
        return part.read(inner, columns)

    def place(self, index: int) -> Place:
        part, inner = self._find(index)
        return part.place(inner)

    def _find(self, index: int) -> tuple[Rows, int]:
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)
