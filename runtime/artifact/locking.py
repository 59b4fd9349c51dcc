"""Locks: one process at a time changes an artifact, or writes into one place.

The lock is the operating system's, on a hidden file beside what it guards. It ends with its process, so that of a killed one
holds nobody up; the file is removed by whoever held it. On a network file system it excludes other machines only as far as
that file system's `flock` does.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vlmc.runtime.errors import EnvironmentLacks, InputError

WAIT = 60.0
"""Seconds to wait for another process that changes the same artifact; each holds the lock for a moment."""


@contextmanager
def exclusive(place: Path, part: str = "", *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder, which need not exist, or of one `part` of it; inside one thread it may be nested.

    Raises:
        InputError: another process holds it, for longer than `wait` seconds.
        EnvironmentLacks: the package filelock is not installed.
    """
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        raise EnvironmentLacks(
            "filelock, which guards what is written, is not installed: pip install 'vlmc[toolchain]'"
        ) from None
    path = _lock_file(place, part)
    with _parents(path):
        lock = FileLock(path, is_singleton=True)
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise InputError(
                f"another process is writing {place / part}: wait until it is done, or name another folder"
            ) from None
        try:
            yield
        finally:
            if lock.lock_counter == 1:
                with suppress(OSError):  # Windows deletes it when it is released
                    path.unlink(missing_ok=True)
            lock.release()


def _lock_file(place: Path, part: str) -> Path:
    """Return the lock's file: beside the folder, or in it where nothing can be written beside it (a mounted volume)."""
    folder = place.resolve()
    name = ".".join(["", folder.name, *filter(None, [part]), "lock"])
    beside = folder.parent / name
    return folder / name if folder.is_dir() and not os.access(folder.parent, os.W_OK) else beside


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make a file's parent folders, and remove those again that are still empty in the end."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
