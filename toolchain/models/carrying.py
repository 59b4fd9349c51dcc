"""Files that a step does not change go from one artifact to the next as hard links, or as copies where links fail."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def carry(source: Path, target: Path, paths: Iterable[str]) -> None:
    """Link or copy files from `source` to the same relative paths of `target`."""
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / path, target / path)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source / path, target / path)
