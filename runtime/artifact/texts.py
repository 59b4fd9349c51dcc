"""Files that are written whole or not at all."""

import os
from pathlib import Path


def partial_of(path: Path) -> Path:
    """Return the file that becomes `path` once it is whole; a killed run may leave it, and the next one takes it over.

    Nobody else's file has such a name.
    """
    return path.with_name(f".{path.name}.vlmc-partial")


def write_text(path: Path, text: str) -> None:
    """Write a whole file in one step: to a sibling first, flushed to the disk, then renamed."""
    partial = partial_of(path)
    partial.unlink(missing_ok=True)
    try:
        with partial.open("x", encoding="utf-8") as stream:  # never through a link
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
