"""Data sets in LLaVA's conversation form: a JSON list, or JSON lines, with pictures beside it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.sample import Sample


def read_conversations(path: Path) -> list[Sample]:
    """Read every question and answer pair of the file; pictures are found relative to its folder.

    Raises:
        InputError: the file cannot be read, or an entry is broken; the message gives its line or its index.
    """
    samples = [sample for where, entry in _entries(path) for sample in _samples(entry, path, where)]
    if not samples:
        raise InputError(f"{path} holds no question")
    return samples


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each entry and where it stands."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if text.lstrip().startswith("["):
        for index, entry in enumerate(_parse(text, path, "")):
            yield f"entry {index}", entry
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"line {number}", _parse(line, path, f"line {number}: ")


def _parse(text: str, path: Path, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = where or f"line {error.lineno}: "
        raise InputError(f"{path}, {line}no valid JSON ({error.msg} at column {error.colno})") from None


def _samples(entry: Any, path: Path, where: str) -> Iterator[Sample]:
    def fail(what: str) -> InputError:
        return InputError(f"{path}, {where}: {what}")

    if not isinstance(entry, dict):
        raise fail("an entry must be an object with image and conversations")
    image, turns = entry.get("image"), entry.get("conversations")
    if not isinstance(image, str) or not (path.parent / image).is_file():
        raise fail(f"no picture at {image!r} (looked beside the file)")
    if not isinstance(turns, list) or len(turns) < 2 or not all(_is_turn(turn) for turn in turns):
        raise fail('conversations must be a list of {"from": "human" | "gpt", "value": text}, a question and its answer')
    name = str(entry.get("id", where))
    for number, (asked, answered) in enumerate(zip(turns[::2], turns[1::2], strict=False)):
        if (asked["from"], answered["from"]) != ("human", "gpt") or not answered["value"].strip():
            raise fail("turns must be human, gpt, human, gpt ... and no answer may be empty")
        question = asked["value"].replace("<image>", "").strip()
        yield Sample(
            f"{name}-{number}", path.parent / image, question, answered["value"].strip(), str(entry.get("kind", "all"))
        )


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("from"), str) and isinstance(turn.get("value"), str)
