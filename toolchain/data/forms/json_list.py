"""The byte spans of the entries of a JSON list, found without holding the list: LLaVA's own file has over a gigabyte.

The file is decoded as latin-1, one character per byte: JSON's syntax is ASCII, so the offsets are right whatever the strings
contain.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vlmc.runtime.errors import InputError

CHUNK = 1 << 20  # bytes to read at a time
_SPACE = " \t\r\n\xef\xbb\xbf"  # white space, and a byte order mark
_CUT = 16  # an error this near the window's end may only mean that the window ends there


def list_spans(stream: BinaryIO, path: Path) -> Iterator[tuple[int, int]]:
    """Yield the start and the end (exclusive) of each entry, in bytes.

    Raises:
        InputError: the file is not a valid JSON list; the entries before the fault have been yielded.
    """
    window, number = _Window(stream), 0
    try:
        window.expect("[")
        while window.peek() != "]":
            if number:
                window.expect(",")
            yield window.value()
            number += 1
        window.expect("]")
        if window.peek():
            raise ValueError("text after the end of the list")
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{path}, entry {number}: invalid JSON ({reason})") from None


class _Window:
    """The part of a file in memory; it grows where a value needs it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._decode = stream, json.JSONDecoder().raw_decode
        self._text, self._at, self._base = "", 0, 0  # the text starts at byte `base`; everything before `at` is done

    def peek(self) -> str:
        """Return the next character that is not white space, "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._grow():
                return ""

    def expect(self, character: str) -> None:
        """Step over a character, or raise ValueError."""
        if (found := self.peek()) != character:
            raise ValueError(f"expected {character!r}, found {repr(found) if found else 'the end of the file'}")
        self._at += 1

    def value(self) -> tuple[int, int]:
        """Step over a value; return its span in bytes."""
        self.peek()
        while True:
            try:
                _, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self._text) - _CUT or error.msg.startswith("Unterminated string")
                if cut and self._grow():
                    continue
                raise
            span = self._base + self._at, self._base + end
            self._at = end
            return span

    def _grow(self) -> bool:
        """Drop what is done, and read as much again as is left, at least a chunk."""
        rest = self._text[self._at :]
        read = self._stream.read(max(CHUNK, len(rest))).decode("latin-1")
        self._base, self._text, self._at = self._base + self._at, rest + read, 0
        return bool(read)
