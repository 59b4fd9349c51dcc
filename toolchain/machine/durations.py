"""How long a stage took to make an artifact: a note in the user's cache, for artifacts hold no time.

An artifact is found by its digest, so a note is that of the last run on this machine that gave these bytes.
"""

import os
from contextlib import suppress

from vlmc.runtime.cache import cache_folder


def note(digest: str, seconds: float) -> None:
    """Keep a time; a cache that cannot be written is ignored."""
    with suppress(OSError, RuntimeError):
        path = cache_folder() / "times" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(f"{seconds:.1f}\n", encoding="utf-8")
        partial.replace(path)


def noted(digest: str) -> float | None:
    """Return the seconds that were noted, None where there is no such note."""
    try:
        return float((cache_folder() / "times" / digest).read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):
        return None
