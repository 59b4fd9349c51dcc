"""The decoder's products, and how long packed ones are predicted to take here, to stand beside what is measured."""

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

import numpy as np
from torch import nn

from vlmc.runtime.kernels.native import loaded, product, run
from vlmc.runtime.kernels.packing import ValueType
from vlmc.runtime.kernels.speed import of_ones, stored_bytes
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.deploy.deployed import Deployed
from vlmc.toolchain.deploy.reached import reached
from vlmc.toolchain.families.base import linears

CACHE = 128 << 20
"""Bytes of float32 weights that a cache may hold: below them decoding does not wait for memory, which is predicted."""
TOO_SMALL = f"nothing is predicted: below {CACHE >> 20} MB of fp32 a cache may hold the decoder's weights"
PASSES, SECONDS = 3, 0.25
"""How often the products are timed, at least, and for how long."""
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
    """Return the seconds of a token's products by the clock `now`, 2:4 weights packed in that type: a median of passes.

    Weights are of ones, each in memory of its own, and taken in the model's order over and over: what a cache keeps of them
    until the next token it keeps here too. Dense ones of that type are read only: they have twice the multiply-adds, but
    wait for memory.

    Raises:
        EnvironmentLacks: the kernels were not built.
    """
    xs = {inputs: np.ones((1, inputs), np.float32) for _, inputs, _ in found}
    ys = {outputs: np.empty((1, outputs), np.float32) for outputs, _, _ in found}
    packed = [of_ones(kind, outputs, inputs) for outputs, inputs, sparse in found if sparse]
    described = [product(xs[weight.inputs], weight, None, ys[weight.outputs]) for weight in packed]
    dense = np.ones(int(sum(stored_bytes(kind, o, i, dense=True) for o, i, sparse in found if not sparse)) // 8, np.uint64)
    share, read = len(dense) // threads, loaded().vlmc_read

    def part(number: int) -> None:
        for one in described:
            run(one, part=number, parts=threads)
        read(ctypes.c_void_p(dense.ctypes.data + 8 * share * number), share)

    times: list[float] = []
    began = perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while len(times) <= PASSES or perf_counter() - began < SECONDS:
            start = now()
            list(pool.map(part, range(threads)))
            times.append(now() - start)
    return median(times[1:])
