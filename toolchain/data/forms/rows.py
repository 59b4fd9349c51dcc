"""Rows: what a data set's files hold before anyone says which column is the question. One subclass for each form."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a row stands, for messages: a file or a data set, and the row in it."""

    source: str
    row: str


class Rows(ABC):
    """Rows that are read one at a time, at random."""

    columns: tuple[str, ...]
    """The columns there are, as the first row or the file's schema has them."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, columns: Collection[str]) -> dict[str, Any]:
        """Return a row's values by column, those named at least; images stay where they are until they are opened.

        Raises:
            InputError: the row is broken; the message gives its place.
        """

    @abstractmethod
    def place(self, index: int) -> Place:
        """Say where a row stands."""

    def folder(self, index: int) -> Path:
        """Return the folder that a row's image paths start from."""
        return Path(self.place(index).source).parent


class ManyRows(Rows):
    """The rows of several files of one form, one file after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = parts
        self.columns = next((part.columns for part in parts if len(part)), ())
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
