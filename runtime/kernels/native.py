"""The compiled kernels, called without ONNX Runtime."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlmc.runtime.errors import EnvironmentLacks
from vlmc.runtime.kernels.packing import Array, Packed

REMEDY = "install a C++ compiler (such as g++), then run pip install --force-reinstall --no-deps vlmc"
_TYPES = {"fp32": 0, "bf16": 1, "fp16": 2, "int8": 3}
Rounding = Literal["fp32", "bf16", "int8"]
"""What activations may be rounded to; fp32: they stay."""
_ROUNDINGS: dict[Rounding, int] = {"fp32": 0, "bf16": 1, "int8": 2}
_FAILURES = {1: "the arrays are no product", 2: "this CPU has no such instruction set", 3: "no memory for it"}


class _Product(ctypes.Structure):
    """Product of layout.h."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("type", ctypes.c_int64),
        ("dense", ctypes.c_int64),
        ("span", ctypes.c_int64),
        ("round", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
    )


def library() -> Path | None:
    """Return the shared library that was built when vlmc was installed, None where it was not."""
    found = sorted(Path(__file__).parent.glob("matmul24*.so"))
    return found[0] if found else None


def require_library() -> Path:
    """Return the shared library.

    Raises:
        EnvironmentLacks: it was not built.
    """
    path = library()
    if path is None:
        raise EnvironmentLacks(f"the 2:4 kernels were not built when vlmc was installed: {REMEDY}")
    return path


def instruction_sets() -> list[str]:
    """Return the instruction sets that the kernels have and this CPU too, best first; empty where nothing was built."""
    if library() is None:
        return []
    names = ("amx", "avx512", "avx2", "neon", "portable")
    return [name for name in names if loaded().vlmc_instruction_set(name.encode()) is not None]


def matmul(
    x_RI: Array, packed: Packed, bias_O: Array | None = None, instruction_set: str = "", *, rounded: Rounding = "fp32"
) -> Array:
    """Return x W^T + bias (R, O) in float32, on this thread.

    x may be `rounded` first: many rows to bf16 for a weight in bf16, any to int8 for one in int8, where the CPU has such
    kernels; then each row's columns that share a scale of the weight have one of max|x| / 127.

    Raises:
        EnvironmentLacks: the library was not built, or the CPU lacks the instruction set; "" takes the best.
    """
    y_RO = np.empty((x_RI.shape[0], packed.outputs), np.float32)
    run(product(x_RI, packed, bias_O, y_RO, rounded=rounded), instruction_set)
    return y_RO


def product(x_RI: Array, packed: Packed, bias_O: Array | None, y_RO: Array, *, rounded: Rounding = "fp32") -> "_Product":
    """Describe a product to `run`; the arrays must outlive it, lie contiguous, and x, bias and y be float32."""
    for array in (x_RI, y_RO, *([] if bias_O is None else [bias_O])):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
    assert x_RI.shape[1] == packed.inputs
    assert y_RO.shape == (x_RI.shape[0], packed.outputs)
    dense = int(packed.positions is None)
    arrays = (x_RI, packed.values, packed.positions, packed.scales, bias_O, y_RO)
    pointers = (None if array is None else array.ctypes.data for array in arrays)
    sizes = (x_RI.shape[0], packed.inputs, packed.outputs, _TYPES[packed.type], dense, packed.span, _ROUNDINGS[rounded])
    return _Product(*sizes, *pointers)


def run(described: "_Product", instruction_set: str = "", part: int = 0, parts: int = 1) -> None:
    """Compute share `part` of `parts` of a product; several threads may each compute one.

    Raises:
        EnvironmentLacks: as for `matmul`.
    """
    failure = loaded().vlmc_matmul(ctypes.byref(described), instruction_set.encode(), part, parts)
    if failure:
        raise EnvironmentLacks(f"2:4 kernel {instruction_set!r}: {_FAILURES[failure]}")


class WithoutSubnormals:
    """Inside `with`, this thread takes numbers below 1.2e-38 as zero, where the kernels were built; then as before.

    An x86 CPU takes a hundred times as long for a product with such a number, and attention has many: the exponentials of
    whatever a mask hides.
    """

    def __enter__(self) -> None:
        switch = _switch()
        self._before = switch is not None and switch(True)

    def __exit__(self, *error: object) -> None:
        switch = _switch()
        if switch is not None:
            switch(self._before)


@cache
def _switch() -> Any:
    """Return the library's function for it, which is so short that this thread keeps Python's lock; None: not built."""
    path = library()
    return None if path is None else ctypes.PyDLL(str(path)).vlmc_flush_subnormals


@cache
def loaded() -> ctypes.CDLL:
    """Return the shared library with its functions' types."""
    found = ctypes.CDLL(str(require_library()))
    found.vlmc_instruction_set.argtypes, found.vlmc_instruction_set.restype = [ctypes.c_char_p], ctypes.c_char_p
    found.vlmc_matmul.argtypes = [ctypes.POINTER(_Product), ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64]
    found.vlmc_read.argtypes, found.vlmc_read.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_uint64
    return found
