"""Memory of large images goes back to the system as soon as it is free."""

import ctypes
import sys
from contextlib import suppress
from typing import Final

_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h
_LARGE: Final = 1 << 20  # bytes


def return_large_blocks() -> None:
    """Let glibc's malloc map blocks of a megabyte and more by themselves; without glibc, do nothing.

    Left alone, it raises that bound with every large block that is freed, to 32 MB, and keeps up to twice as much in
    every thread: after a few large images a server stays larger for good.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl has none of it
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
