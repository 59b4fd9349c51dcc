"""Text files: JSON lines, a JSON list, CSV, plain text. Only the byte spans of the rows stay in memory.

Read without `datasets`, which would copy a whole file into its cache before the first row, needs one type for each column,
and does not name the line in its errors.
"""

import csv
import json
from abc import abstractmethod
from array import array
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vlmc.runtime.errors import InputError
from vlmc.runtime.json_text import parse_json
from vlmc.toolchain.data.forms.json_list import list_spans
from vlmc.toolchain.data.forms.rows import Place, Rows

MARK = "utf-8-sig"  # skips a byte order mark
_PIECE = 1_200  # bytes of plain text in a row at most: some 256 tokens of English


def open_text(path: Path, limit: int | None) -> Rows:
    """Open the first `limit` rows of a .json, .jsonl, .csv or .txt file.

    Raises:
        InputError: the file cannot be read, or is cut off before the limit.
    """
    if path.suffix in (".csv", ".txt"):
        return CsvRows(path, limit) if path.suffix == ".csv" else PlainText(path, limit)
    return JsonList(path, limit) if _first_character(path) == b"[" else JsonLines(path, limit)


def _first_character(path: Path) -> bytes:
    with _open(path) as stream:
        return next((line.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] for line in stream if line.strip(b"\xef\xbb\xbf \t\r\n")), b"")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


class Span(NamedTuple):
    """The start and end (exclusive) of a row in bytes, and its number in messages."""

    start: int
    end: int
    number: int


class TextRows(Rows):
    """Rows of one text file, by their byte spans."""

    unit = "line"

    def __init__(self, path: Path, limit: int | None) -> None:
        self.path = path
        self._spans = array("q")
        with _open(path) as stream:
            for span in islice(self.spans(stream), limit):
                self._spans.extend(span)
        self.columns = tuple(self.read(0, ())) if self._spans else ()

    @abstractmethod
    def spans(self, stream: BinaryIO) -> Iterator[Span]:
        """Yield the span of each row."""

    @abstractmethod
    def parse(self, text: str) -> dict[str, Any]:
        """Return a row's values.

        Raises:
            ValueError: the row is invalid; the message says why.
        """

    def __len__(self) -> int:
        return len(self._spans) // len(Span._fields)

    def read(self, index: int, columns: Collection[str]) -> dict[str, Any]:
        span = self._span(index)
        with _open(self.path) as stream:
            stream.seek(span.start)
            raw = stream.read(span.end - span.start)
        try:
            return self.parse(raw.decode(MARK))
        except ValueError as error:
            raise InputError(f"{self.path}, {self.unit} {span.number}: {_reason(error)}") from None

    def place(self, index: int) -> Place:
        return Place(str(self.path), f"{self.unit} {self._span(index).number}")

    def _span(self, index: int) -> Span:
        return Span(*self._spans[3 * index : 3 * index + 3])


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"invalid JSON ({error.msg} at column {error.colno})"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


class JsonLines(TextRows):
    """One JSON object per line; empty lines are skipped."""

    def spans(self, stream: BinaryIO) -> Iterator[Span]:
        start = 0
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield Span(start, start + len(line), number)
            start += len(line)

    def parse(self, text: str) -> dict[str, Any]:
        return _object(text)


class JsonList(TextRows):
    """A JSON list of objects."""

    unit = "entry"

    def spans(self, stream: BinaryIO) -> Iterator[Span]:
        return (Span(start, end, number) for number, (start, end) in enumerate(list_spans(stream, self.path)))

    def parse(self, text: str) -> dict[str, Any]:
        return _object(text)


def _object(text: str) -> dict[str, Any]:
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError("an entry must be an object with image and conversations, or image, question and answer")
    return found


class CsvRows(TextRows):
    """Comma-separated values, with the column names in the first line."""

    def __init__(self, path: Path, limit: int | None) -> None:
        self._header: list[str] = []
        super().__init__(path, limit)

    def spans(self, stream: BinaryIO) -> Iterator[Span]:
        end = 0

        def lines() -> Iterator[str]:
            nonlocal end
            for line in stream:
                end += len(line)
                yield line.decode("utf-8", errors="replace")  # a row that is not UTF-8 fails in `read`

        start, first = 0, 1
        reader = csv.reader(lines())
        try:
            for values in reader:
                if not self._header:
                    self._header = [values[0].removeprefix("\ufeff"), *values[1:]] if values else []
                elif values:
                    yield Span(start, end, first)
                start, first = end, reader.line_num + 1
        except csv.Error as error:
            raise InputError(f"{self.path}, line {first}: invalid CSV ({error})") from None

    def parse(self, text: str) -> dict[str, Any]:
        try:
            values = next(csv.reader(text.splitlines(keepends=True)))
        except csv.Error as error:
            raise ValueError(f"invalid CSV ({error})") from None
        if len(values) != len(self._header):
            raise ValueError(f"{len(values)} values for {len(self._header)} columns in the first line")
        return dict(zip(self._header, values, strict=True))


class PlainText(TextRows):
    """Plain text in UTF-8, in pieces that end between paragraphs, lines or words where there are some."""

    plain = True

    def spans(self, stream: BinaryIO) -> Iterator[Span]:
        start, line = 0, 1
        while piece := stream.read(_PIECE):
            size = len(piece) if len(piece) < _PIECE else _end(piece)
            stream.seek(start + size)
            if piece[:size].strip():
                yield Span(start, start + size, line)
            start, line = start + size, line + piece.count(b"\n", 0, size)

    def parse(self, text: str) -> dict[str, Any]:
        return {"text": text}


def _end(piece: bytes) -> int:
    """Return where a piece of a text is best cut: in its second half, or else after its last whole character."""
    for mark in (b"\n\n", b"\n", b" "):
        if (found := piece.rfind(mark, len(piece) // 2)) >= 0:
            return found + len(mark)
    place = len(piece) - 1
    while place > len(piece) - 4 and piece[place] & 0xC0 == 0x80:  # inside a character
        place -= 1
    return place
