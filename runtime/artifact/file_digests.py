"""SHA-256 of files, cached in the user's cache folder: an unchanged file is not read again.

An entry is valid for a file of the same path, size, inode, mtime and ctime (in nanoseconds); the ctime changes even where a
program restores the mtime. A file that changed less than two seconds before it was read is not cached, since a file system's
clock may give two changes the same time.
"""

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from vlmc.runtime.artifact.digest import sha256_file
from vlmc.runtime.cache import cache_folder

RACY_NS = 2_000_000_000
MOST = 2_000_000
"""Entries to keep, of about 200 bytes each; the oldest are dropped."""
_TABLE = "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL)"
WAIT = 5.0  # seconds to wait for another process that writes
_VERSION = 1
_AT_ONCE = 10_000  # new entries that are written together


class FileDigests:
    """Digests of files, cached; a context manager that saves new ones when it exits.

    SQLite keeps the cache intact when processes write at once or one is killed. Where it cannot be opened or written, every
    file is read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None
        self._new: list[tuple[str, str, str]] = []

    def __enter__(self) -> Self:
        self._connection = _open(self._folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._connection is not None:
            self._save(self._connection)
            self._connection.close()

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file.

        Raises:
            OSError: it cannot be read.
        """
        name, before = os.path.abspath(path), os.stat(path)
        state = _state(before)
        found = self._find(name, state)
        if found is None:
            now = time.time_ns()
            found = sha256_file(path)
            if _state(os.stat(path)) == state and now - max(before.st_mtime_ns, before.st_ctime_ns) > RACY_NS:
                self._keep(name, state, found)
        return found

    def _keep(self, name: str, state: str, found: str) -> None:
        if self._connection is not None and name.isprintable():  # a key must be text
            self._new.append((name, state, found))
            if len(self._new) == _AT_ONCE:
                self._save(self._connection)

    def _find(self, name: str, state: str) -> str | None:
        if self._connection is None:
            return None
        try:
            rows = self._connection.execute("SELECT state, sha256 FROM digests WHERE path = ?", (name,)).fetchall()
        except UnicodeEncodeError:
            return None
        except sqlite3.Error:  # damaged or locked: do not wait again for every file
            self._connection.close()
            self._connection = None
            return None
        return next((str(sha256) for kept, sha256 in rows if kept == state), None)

    def _save(self, connection: sqlite3.Connection) -> None:
        """Write the new entries; drop them if that fails (the cache is locked, the disk is full)."""
        rows, self._new = self._new, []
        if not rows:
            return
        with suppress(sqlite3.Error), connection:
            connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
            count = connection.execute("SELECT count(*) FROM digests").fetchone()[0]
            oldest = "SELECT rowid FROM digests ORDER BY rowid LIMIT ?"
            connection.execute(f"DELETE FROM digests WHERE rowid IN ({oldest})", (max(0, count - MOST),))


def _open(folder: Path | None) -> sqlite3.Connection | None:
    """Open the cache, replacing a damaged one; None if that is impossible."""
    for _ in range(2):
        connection = None
        try:
            path = (folder or cache_folder()) / f"file-digests-{_VERSION}.sqlite"
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=WAIT)
            connection.execute(_TABLE)
            return connection
        except (OSError, RuntimeError, sqlite3.Error) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.OperationalError) or not isinstance(error, sqlite3.DatabaseError):
                return None  # no home folder, not writable, or locked
            path.unlink(missing_ok=True)
    return None


def _state(found: os.stat_result) -> str:
    times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
    return f"{found.st_size} {found.st_dev} {found.st_ino} {times}"
