"""SHA-256 of files, kept in the user's cache folder: a file that has not changed since is not read again.

An entry counts for a file of the same path, size, inode, and times of its last change (content and inode, in nanoseconds):
the inode's own time changes even where a program puts the other back. Nothing is kept of a file that was changed less than
two seconds before it was read, for a file system's clock may not tell two changes apart.
"""

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from vlmc.runtime.artifact import sha256_file
from vlmc.toolchain.machine.cache import cache_folder

RACY_NS = 2_000_000_000
MOST = 2_000_000
"""Entries that are kept, of about 200 bytes each; beyond them the ones first written go."""
_TABLE = "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL)"
WAIT = 5.0  # seconds for another process to end its writing
_VERSION = 1
_AT_ONCE = 10_000  # new entries that are written together


class FileDigests:
    """Digests of files, from the cache where it holds them; a context manager, which writes the new ones at its end.

    SQLite keeps the cache whole when processes write at once or one is killed. Where it cannot be opened or written, files
    are read every time.
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
        if self._connection is not None and name.isprintable():  # bytes that are no text are no key
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
        except sqlite3.Error:  # damaged, or held by another process for long: not to be waited for with every file
            self._connection.close()
            self._connection = None
            return None
        return next((str(sha256) for kept, sha256 in rows if kept == state), None)

    def _save(self, connection: sqlite3.Connection) -> None:
        """Write the new entries; where that fails (another process writes for long, the disk is full) they are dropped."""
        rows, self._new = self._new, []
        if not rows:
            return
        with suppress(sqlite3.Error), connection:
            connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
            count = connection.execute("SELECT count(*) FROM digests").fetchone()[0]
            oldest = "SELECT rowid FROM digests ORDER BY rowid LIMIT ?"
            connection.execute(f"DELETE FROM digests WHERE rowid IN ({oldest})", (max(0, count - MOST),))


def _open(folder: Path | None) -> sqlite3.Connection | None:
    """Open the cache, a new one in the place of one that is damaged; None where there can be none."""
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
                return None  # there is no home, or it cannot be written, or another process writes for long
            path.unlink(missing_ok=True)
    return None


def _state(found: os.stat_result) -> str:
    times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
    return f"{found.st_size} {found.st_dev} {found.st_ino} {times}"
