"""The decoder's products, and how long packed ones are predicted to take here, to stand beside what is measured."""

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

import numpy as np
from torch import nn

from vlmc.runtime.kernels.native import loaded, product, run
from vlmc.runtime.kernels.packing import Array, ValueType
from vlmc.runtime.kernels.speed import READ, of_ones
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.deploy.deployed import Deployed
from vlmc.toolchain.deploy.reached import reached
from vlmc.toolchain.families.base import linears

CACHE = 128 << 20
"""Bytes of float32 weights that a cache may hold: below them decoding does not wait for memory, which is predicted."""
TOO_SMALL = f"nothing is predicted: below {CACHE >> 20} MB of fp32 a cache may hold the decoder's weights"
PASSES, TIMES = 4, 3
"""How often the products are taken with the same weights, the first time not counted, and with how many weights."""
_TWO_FOUR = SparsityPattern.parse("2:4")
Product = tuple[int, int, bool]
"""Outputs, inputs, and whether the weight is promised as 2:4."""


def products(deployed: Deployed, model: nn.Module) -> list[Product]:
    """Return the decoder's products with weights."""
    decoder = next(spec for spec in deployed.specs if spec.name == deployed.deployment.graphs.decoder)
    names = reached(decoder, model, [name for name, _ in linears(model)])
    weights = {inside: decoder.module.get_parameter(f"{inside}.weight") for inside in names}
    return [(*weight.shape, decoder.sparse.get(inside) == _TWO_FOUR) for inside, weight in weights.items()]


def is_predicted(found: Sequence[Product]) -> bool:
    """Say whether no cache holds the weights of these products."""
    return sum(4 * outputs * inputs for outputs, inputs, _ in found) >= CACHE


def packed_seconds(
    kind: ValueType, found: Sequence[Product], threads: int, now: Callable[[], float] = perf_counter
) -> float:
    """Return the seconds of a token's products by the clock `now`, 2:4 weights packed in that type, the others dense in it.

    They are taken in the model's order, with new weights of ones after other memory was read, a few times: what a cache
    keeps until the next token it keeps here too. Many times would let it keep more than it does amid a decoder.

    Raises:
        EnvironmentLacks: the kernels were not built.
    """
    others = np.ones(READ // 8, np.uint64)
    return median(seconds for _ in range(TIMES) for seconds in _passes(kind, found, threads, now, others)[1:])


def _passes(kind: ValueType, found: Sequence[Product], threads: int, now: Callable[[], float], others: Array) -> list[float]:
    """Return the seconds of each pass over the same new weights; `others` are read first, to take their place in a cache."""
    xs = {inputs: np.ones((1, inputs), np.float32) for _, inputs, _ in found}
    ys = {outputs: np.empty((1, outputs), np.float32) for outputs, _, _ in found}
    weights = [of_ones(kind, outputs, inputs, dense=not sparse) for outputs, inputs, sparse in found]
    described = [product(xs[weight.inputs], weight, None, ys[weight.outputs]) for weight in weights]

    def part(number: int) -> None:
        for one in described:
            run(one, part=number, parts=threads)

    loaded().vlmc_read(ctypes.c_void_p(others.ctypes.data), len(others))
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(PASSES):
            began = now()
            list(pool.map(part, range(threads)))
            times.append(now() - began)
    return times
