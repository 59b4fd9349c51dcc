"""Digests: SHA-256 of a file, and one digest for a set of files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of_files(sums: Mapping[str, str]) -> str:
    """Return one SHA-256 for a set of files, given as relative path -> SHA-256; the order does not matter."""
    lines = "".join(f"{total}  {path}\n" for path, total in sorted(sums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
