"""A store of finished runs: a benchmark of hours may be killed, or cut short, and goes on when it is started again."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact.texts import write_text
from vlmc.toolchain.machine.versions import versions

Found = dict[str, Any]
"""What a run found, as JSON has it."""


class OutOfTime(Exception):
    """The time that was given is over."""


class Store:
    """Finished runs by what decides them, one file each; a run that is there is read, any other is done and kept.

    `until` is the time, in seconds since the epoch, after which none is begun.

    Raises:
        OutOfTime: a run is to be done, and the time is over.
    """

    def __init__(self, folder: Path, until: float | None = None) -> None:
        self.folder, self.until = folder, until
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def for_minutes(cls, folder: Path, minutes: float | None) -> "Store":
        """Return a store that begins no run after so many minutes from now."""
        return cls(folder, None if minutes is None else time.time() + 60 * minutes)

    def run(self, key: Mapping[str, Any], do: Callable[[], Found]) -> Found:
        """Return the result of the run with this key."""
        text = json.dumps({**key, "versions": versions()}, sort_keys=True)
        path = self.folder / f"{digest(text)}.json"
        if path.is_file():
            kept: Found = json.loads(path.read_text(encoding="utf-8"))["found"]
            return kept
        if self.until is not None and time.time() > self.until:
            raise OutOfTime
        found = do()
        write_text(path, json.dumps({"key": json.loads(text), "found": found}, indent=1) + "\n")
        return found


def digest(text: str) -> str:
    """Return a short name for a run."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]
