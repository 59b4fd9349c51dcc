"""Giving memory back to the system: glibc otherwise keeps that of freed tensors, and it adds up block after block."""

import ctypes
import platform

LARGE = 4 << 20  # bytes
_M_MMAP_THRESHOLD = -3


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
