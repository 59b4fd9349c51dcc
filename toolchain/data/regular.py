"""Reading files that data name: regular ones alone, for a device, a pipe or a socket may never end."""

import os
import stat
from pathlib import Path

MOST = 1 << 30  # bytes of an image file


def is_regular(path: Path) -> bool:
    """Whether there is a regular file, or a link to one."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        return False


def read_regular(path: Path) -> bytes:
    """Return a regular file's bytes.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `MOST` bytes.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a regular file", str(path))
        if found.st_size > MOST:
            raise OSError(0, f"it has {found.st_size} bytes", str(path))
        return stream.read()
