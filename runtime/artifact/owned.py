"""Folders that vlmc works in: it deletes and takes over those that carry its mark, and no others.

The mark, the file `.vlmc-run`, holds the folder's own name and what decides the result of the run that made it. So a folder
of the user's that happens to have the name, or one that was renamed, is left as it is. Before a folder is deleted its mark
says so: what a kill leaves of it holds no run any more.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from vlmc.runtime.artifact.texts import partial_of, write_text
from vlmc.runtime.errors import InputError

MARK = ".vlmc-run"
_FRESH = partial_of(Path(MARK)).name
_GOING = "being deleted"


def beside(destination: Path, name: str) -> Path:
    """Return the path of that name beside a destination.

    Raises:
        InputError: the destination has no name of its own, such as "." and "/".
    """
    try:
        return destination.with_name(name)
    except ValueError:
        told = f"{str(destination)!r} is no name for what is written: name a folder that is not there yet, such as out"
        raise InputError(told) from None


@final
class OwnFolder:
    """One such folder; `run` is all that decides the result of the run that it belongs to, as JSON values."""

    def __init__(self, path: Path, run: Mapping[str, Any] | None = None) -> None:
        self.path, self.run = path, dict(run or {})

    def check(self) -> None:
        """Check that the folder is missing, empty, or vlmc's own.

        Raises:
            InputError: it is something else.
        """
        if not self.path.is_symlink() and (not self.path.exists() or self._is_bare() or self._mark() is not None):
            return
        raise InputError(
            f"{self.path} is in the way and was not made by vlmc: move it away, or choose another name for what is written"
        )

    def found(self) -> dict[str, Any] | None:
        """Return what decides the result of the run that the folder holds, None where it holds none, or parts of one."""
        self.check()
        mark = self._mark()
        return None if mark is None or mark.get(_GOING) else dict(mark["run"])

    def is_going(self) -> bool:
        """Whether the folder was being deleted when that was stopped."""
        return bool((self._mark() or {}).get(_GOING))

    def make(self) -> Path:
        """Make the folder anew, empty but for its mark.

        Raises:
            InputError: what is there is not vlmc's.
        """
        self.remove()
        self.path.mkdir(parents=True)
        self._write({"folder": self.path.name, "run": self.run})
        return self.path

    def remove(self) -> None:
        """Delete the folder, its mark last: what a kill leaves of it is still known as vlmc's.

        Raises:
            InputError: it is not vlmc's.
        """
        self.check()
        if not self.path.is_dir():
            return
        if (mark := self._mark()) is not None:
            self._write(mark | {_GOING: True})
        for child in self.path.iterdir():
            if child.name != MARK:
                _delete(child)
        if self._is_bare():
            (self.path / MARK).unlink(missing_ok=True)
            self.path.rmdir()

    def _is_bare(self) -> bool:
        """Whether there is nothing in the folder that could be lost."""
        return self.path.is_dir() and all(child.name in {MARK, _FRESH} for child in self.path.iterdir())

    def _write(self, mark: Mapping[str, Any]) -> None:
        """Write the mark in one step: a folder with half of one would be nobody's."""
        write_text(self.path / MARK, json.dumps(mark, indent=2, sort_keys=True) + "\n")

    def _mark(self) -> dict[str, Any] | None:
        try:
            mark = json.loads((self.path / MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        is_own = isinstance(mark, dict) and mark.get("folder") == self.path.name and isinstance(mark.get("run"), dict)
        return mark if is_own else None


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
