"""Times taken in turns, and how fast memory is read: what a product of few rows cannot beat."""

import ctypes
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vlmc.runtime.kernels.native import require_library

SHORTEST = 0.02  # seconds that one time covers, by repeating


Clock = Callable[[], float]


def clock(threads: int) -> Clock:
    """Return the clock to read: with one thread the processor's time, which others on the machine disturb little."""
    return time.process_time if threads == 1 else time.perf_counter


def seconds(contestants: Mapping[str, Callable[[], object]], rounds: int, now: Clock) -> dict[str, list[float]]:
    """Return every contestant's times for one call, in turns after a round that does not count."""
    counts = dict.fromkeys(contestants, 1)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(rounds + 1):
        for name, call in contestants.items():
            began = now()
            for _ in range(counts[name]):
                call()
            taken = (now() - began) / counts[name]
            if index:
                times[name].append(taken)
            else:
                counts[name] = max(1, round(SHORTEST / taken))
    return times


class Reading:
    """Threads that each read a share of a buffer which no cache holds."""

    def __init__(self, threads: int, size: int) -> None:
        self.nbytes = size // threads // 4096 * 4096 * threads
        self._buffer = np.ones(self.nbytes // 8, np.uint64)
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads
        self._library = ctypes.CDLL(str(require_library()))
        self._library.vlmc_read.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        self._library.vlmc_read.restype = ctypes.c_uint64

    def __call__(self) -> None:
        """Read all of it once."""
        share = len(self._buffer) // self._threads
        starts = [self._buffer.ctypes.data + 8 * share * index for index in range(self._threads)]
        list(self._pool.map(lambda start: self._library.vlmc_read(start, share), starts))
