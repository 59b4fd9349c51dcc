"""Memory that is free, and giving it back: glibc otherwise keeps that of freed tensors, and it adds up block after block."""

import ctypes
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil

LARGE = 4 << 20  # bytes
_M_MMAP_THRESHOLD = -3
_GROUPS = Path("/proc/self/cgroup")
_LIMITS = (
    ("", "memory.max", "memory.current", "file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "cache"),
)
"""Of control groups, version 2 and 1: their folder, the files of the limit and of what is used, the name of files' pages."""


def free_memory(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes this process may still take: what the system has, and what its control groups leave it.

    A container, or a limit that a service was given, is such a group. Pages of files count as free.
    """
    return min([int(psutil.virtual_memory().available), *_left(root)])


def _left(root: Path) -> Iterator[int]:
    """Yield what each control group leaves that this process is in, as far as they can be seen from here."""
    try:
        names = [line.split(":", 2)[2] for line in _GROUPS.read_text(encoding="utf-8").splitlines()]
    except OSError:
        names = []
    for name in dict.fromkeys(["/", *names]):
        for inside, limit, used, files in _LIMITS:
            group = root / inside / name.lstrip("/")
            try:
                most, taken = (int((group / file).read_text()) for file in (limit, used))
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group, or no limit
                continue
            yield max(0, most - taken + int(stat.get(files, 0)))


def keep_large_apart(size: int = LARGE) -> None:
    """From now on give every tensor of so many bytes or more pages of its own, which the system gets back with the tensor.

    By default glibc raises that limit to as much as 32 MiB, and smaller tensors leave holes.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, size)


def return_memory() -> None:
    """Give freed memory back to the system."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
