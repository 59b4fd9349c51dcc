"""The folder of vlmc's own caches, one for each user."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$VLMC_CACHE`, or `vlmc` in `$XDG_CACHE_HOME` or in `~/.cache`; it need not exist.

    Raises:
        RuntimeError: the user has no home folder.
    """
    if own := os.environ.get("VLMC_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME", "")  # a relative one is to be ignored (XDG Base Directory Specification)
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "vlmc"
