"""JSON from files that anyone may have written."""

import json
from pathlib import Path
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """Return what a JSON file says.

    Raises:
        ValueError: as `parse_json`.
        OSError: it cannot be read.
    """
    return parse_json(path.read_text(encoding="utf-8"))
