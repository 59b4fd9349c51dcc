"""How fast this machine reads memory and multiplies with packed weights, measured in a second or less."""

import ctypes
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Final, TypeVar, get_args

import numpy as np

from vlmc.runtime.kernels.columns import CHUNK, SPAN
from vlmc.runtime.kernels.native import loaded, product, run
from vlmc.runtime.kernels.packing import GROUPS, LANES, Array, Packed, ValueType

TYPES: Final[tuple[ValueType, ...]] = get_args(ValueType)
CHOSEN_FROM: Final[tuple[ValueType, ...]] = ("bf16", "fp16", "fp32")
"""What `fastest` takes, the first of those that are as good as equal. int8 is timed too, but changes a model's answers."""
AS_GOOD = 1.05
LARGE = (2048, 28672)
"""Outputs and inputs of a weight that lies in memory: of 64 MiB in packed bf16, more than a cache of a core's own holds."""
READ = 256 << 20  # bytes
DEFAULT_THREADS = os.cpu_count() or 1
Name = TypeVar("Name")


@dataclass(frozen=True)
class Fastest:
    """The type to pack weights in, and the milliseconds of one row's product in each: with 64 MiB of weights in bf16."""

    type: ValueType
    milliseconds: Mapping[ValueType, float]
    threads: int


@dataclass(frozen=True)
class Speeds:
    """What all threads do in a second: bytes read, packed weights in memory multiplied with one row, bytes of dense ones.

    Weights that 2:4 leaves out count. Dense weights are float32: `dense_read` of their bytes are multiplied with one row.
    """

    threads: int
    bytes_read: float
    products: Mapping[ValueType, float]
    dense_read: float

    def gain(self, kind: ValueType) -> float:
        """Predict how many times as fast as a dense float32 product one row's with a large 2:4 weight is."""
        return 4 * self.products[kind] / self.dense_read


def fastest(seconds: float = 1.0, threads: int = DEFAULT_THREADS) -> Fastest:
    """Time one row's product with weights that lie in memory, in every type in turns.

    Raises:
        EnvironmentLacks: the kernels were not built.
    """
    times = _products(threads, seconds)
    best = min(times[kind] for kind in CHOSEN_FROM)
    chosen = next(kind for kind in CHOSEN_FROM if times[kind] <= AS_GOOD * best)
    return Fastest(chosen, {kind: round(1e3 * time, 3) for kind, time in times.items()}, threads)


def speeds(
    seconds: float = 1.0,
    threads: int = DEFAULT_THREADS,
    now: Callable[[], float] = perf_counter,
    dense_read: float | None = None,
) -> Speeds:
    """Measure what a prediction needs, with the clock `now`; where `dense_read` is None, it is as fast as reading.

    Raises:
        EnvironmentLacks: the kernels were not built.
    """
    weights = LARGE[0] * LARGE[1]
    products = {kind: weights / time for kind, time in _products(threads, seconds / 2, now).items()}
    read = _read(threads, seconds / 2, now)
    return Speeds(threads, read, products, dense_read or read)


def _products(threads: int, seconds: float, now: Callable[[], float] = perf_counter) -> dict[ValueType, float]:
    """Return the median seconds of a large product of one row in each type; inputs and outputs lie in the cache."""
    outputs, inputs = LARGE
    x, y = np.ones((1, inputs), np.float32), np.empty((1, outputs), np.float32)
    with ThreadPoolExecutor(threads) as pool:

        def shared(packed: Packed) -> Callable[[], object]:
            described = product(x, packed, None, y)

            return lambda: list(pool.map(lambda number: run(described, part=number, parts=threads), range(threads)))

        weights = {kind: of_ones(kind, outputs, inputs) for kind in TYPES}  # which must outlive the calls
        return _in_turns({kind: shared(packed) for kind, packed in weights.items()}, seconds, now)


def _read(threads: int, seconds: float, now: Callable[[], float]) -> float:
    """Return the bytes that threads read in a second, each its share of a buffer that no cache holds."""
    words = np.ones(READ // 8, np.uint64)
    share = len(words) // threads
    starts = [words.ctypes.data + 8 * share * index for index in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        read = loaded().vlmc_read
        time = _in_turns(
            {"read": lambda: list(pool.map(lambda start: read(ctypes.c_void_p(start), share), starts))}, seconds, now
        )
    return 8 * share * threads / time["read"]


def _in_turns(calls: Mapping[Name, Callable[[], object]], seconds: float, now: Callable[[], float]) -> dict[Name, float]:
    """Call all in turns until the time is over, at least three rounds after one that does not count; return medians."""
    times: dict[Name, list[float]] = {name: [] for name in calls}
    began = perf_counter()
    while perf_counter() - began < seconds or min(map(len, times.values())) < 4:
        for name, call in calls.items():
            start = now()
            call()
            times[name].append(now() - start)
    return {name: median(found[1:]) for name, found in times.items()}


def of_ones(kind: ValueType, outputs: int, inputs: int, *, dense: bool = False) -> Packed:
    """Return a 2:4 weight of ones, or a dense one; what it holds changes no time, but zeros would share a page of memory."""
    blocks, chunks = -(-outputs // LANES), -(-inputs // CHUNK)
    types = {"fp32": np.float32, "bf16": np.uint16, "fp16": np.float16, "int8": np.int8}
    one: Array = np.full((), 0x3F80 if kind == "bf16" else 1, types[kind])
    pairs, lanes = (2,) if dense else (), (LANES, 2) if kind == "bf16" else (2, LANES)
    values = np.full((blocks, chunks, GROUPS, *pairs, *lanes), one)
    positions = None if dense else np.full((blocks, chunks, LANES), 0x44444444, np.uint32)
    scales = np.ones((blocks, -(-inputs // SPAN), LANES), np.float32) if kind == "int8" else None
    return Packed(kind, outputs, inputs, values, positions, scales)
