"""A sandbox: a folder for one case, with a copy of the material, things outside that nothing may touch, and snapshots."""

import os
import shutil
import stat
from pathlib import Path
from types import TracebackType

from tests.fuzz.child import CACHE

WORK, OUTSIDE = "work", "outside"
_CANARY = "nothing of vlmc's: leave it alone\n"
Snapshot = dict[str, tuple[object, ...]]


class Sandbox:
    """`root/work`, where commands run, and `root/outside`, which no case may change; a context manager."""

    def __init__(self, root: Path) -> None:
        self.root, self.work, self.outside = root, root / WORK, root / OUTSIDE
        self.foreigners: list[Path] = []
        remove(root)
        self.work.mkdir(parents=True)
        (self.outside / "folder").mkdir(parents=True)
        (self.outside / "canary.txt").write_text(_CANARY)
        (self.outside / "folder" / "canary.txt").write_text(_CANARY)

    def take(self, source: Path, name: str | None = None) -> Path:
        """Copy material into the folder that commands run in; return the copy."""
        copy = self.work / (name or source.name)
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
        return copy

    def foreign(self, name: str) -> Path:
        """Put a folder of the user's there, with a file that is none of vlmc's; return it."""
        folder = self.work / name
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text(_CANARY)
        self.foreigners.append(folder)
        return folder

    def snapshot(self) -> Snapshot:
        """Return what lies in the sandbox, vlmc's cache apart: kind, mode, size, time and target by path."""
        found: Snapshot = {}
        for folder, folders, files in os.walk(self.root):
            if CACHE in folders:
                folders.remove(CACHE)
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.root)] = _state(path)
        return found

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        remove(self.root)


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the paths, relative to the sandbox, that came, went or are otherwise than before."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def remove(root: Path) -> None:
    """Delete a folder with all that a case may have put into it."""
    if root.exists():
        shutil.rmtree(root, onerror=_insist)


def _insist(function: object, path: str, error: object) -> None:
    os.chmod(os.path.dirname(path), stat.S_IRWXU)
    os.unlink(path)


def _state(path: str) -> tuple[object, ...]:
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return ("link", os.readlink(path))
    if stat.S_ISDIR(found.st_mode):
        return ("folder", found.st_mode)
    return (stat.S_IFMT(found.st_mode), found.st_size, found.st_mtime_ns, found.st_ino)
