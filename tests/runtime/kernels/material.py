"""Weights and products for the tests of the kernels."""

import numpy as np
import pytest

from vlmc.runtime.kernels import native
from vlmc.runtime.kernels.packing import Array, Packed, unpack

needs_library = pytest.mark.skipif(native.library() is None, reason="the kernels were not built: no C++ compiler")
PAIRS = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def sparse_OI(outputs: int, inputs: int, seed: int = 0) -> Array:
    """Return a random weight whose groups go through all six pairs of places."""
    draw = np.random.default_rng(seed)
    weight = np.zeros((outputs * inputs // 4, 4), np.float32)
    places = np.array(PAIRS)[draw.integers(0, 6, len(weight))]
    np.put_along_axis(weight, places, draw.standard_normal((len(weight), 2), np.float32), -1)
    return weight.reshape(outputs, inputs)


def activations_RI(rows: int, inputs: int, seed: int = 1) -> Array:
    """Return random activations in float32."""
    return np.random.default_rng(seed).standard_normal((rows, inputs), np.float32)


def assert_exact(y_RO: Array, x_RI: Array, packed: Packed, bias_O: Array | None = None) -> None:
    """Hold a product against float64, within what adding up in float32 in any order may round."""
    x, weight = x_RI.astype(np.float64), unpack(packed).astype(np.float64)
    bias = np.zeros(packed.outputs) if bias_O is None else bias_O.astype(np.float64)
    scale = np.abs(x) @ np.abs(weight).T + np.abs(bias)
    terms = packed.inputs // (1 if packed.positions is None else 2) + 2
    bound = min(terms * 2.0**-24, 2e-6) * scale + 1e-38
    assert (np.abs(y_RO - (x @ weight.T + bias)) <= bound).all()
