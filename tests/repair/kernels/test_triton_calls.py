"""The Triton kernels of the masked linear map: their values, in Triton's interpreter and on a GPU.

Triton reads TRITON_INTERPRET once, so the interpreter has a process of its own: `test_in_the_interpreter` runs this file
again there, with the tests of the values on the CPU. Where there is a GPU, `-m gpu` runs the same tests on it.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlmc.toolchain.repair.kernels import masked_linear, pack, support
from vlmc.toolchain.repair.kernels import triton_calls as subject

FULL, BRAIN, HALF = torch.float32, torch.bfloat16, torch.float16
SCALE = 1.5
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
SMALL = (5, 19, 13, 3)
"""Tokens, rows, columns, rank: here no block is full, no byte of the mask, and the ranks are fewer than a product takes."""
SHAPES = [
    SMALL,
    *(pytest.param(one, marks=pytest.mark.slow) for one in [(1, 9, 1, 1), (260, 130, 70, 16), (3, 40, 64, 128)]),
]
"""The third has several blocks of each kind in every kernel; the last has the most ranks."""
TYPES = [(FULL, FULL), (FULL, BRAIN), (BRAIN, BRAIN), (BRAIN, FULL), (HALF, HALF)]
"""Of x and W."""
PRODUCTS = {FULL: 1e-5, BRAIN: 5e-3, HALF: 1e-3}
"""Bounds of y and dx. In the interpreter: 2e-7, 1.8e-3 to 3.8e-3, 2.4e-4 to 8e-4; that is W_hat rounded, and the result."""

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


class Case:
    """A layer's tensors."""

    def __init__(self, shape: tuple[int, int, int, int], types: tuple[torch.dtype, torch.dtype], device: str) -> None:
        tokens, rows, columns, rank = shape
        draw = torch.Generator().manual_seed(rows)

        def normal(*shape: int, dtype: torch.dtype = FULL) -> Tensor:
            return torch.randn(shape, generator=draw).to(device, dtype)

        self.x_LI, self.weight_OI = normal(tokens, columns, dtype=types[0]), normal(rows, columns, dtype=types[1])
        self.bias_O, self.grad_LO = normal(rows), normal(tokens, rows, dtype=types[0])
        self.mask_OI = normal(rows, columns) > 0
        self.a_RI, self.b_OR = normal(rank, columns), normal(rows, rank)
        self.packed_OP = pack(self.mask_OI)

    def found(self, x_LI: Tensor, grad_LO: Tensor) -> list[Tensor]:
        """y, dx, dA, dB."""
        y_LO = subject.forward(x_LI, self.weight_OI, self.bias_O, self.packed_OP, self.a_RI, self.b_OR, SCALE)
        return [y_LO, *self.gradients(x_LI, grad_LO)]

    def gradients(self, x_LI: Tensor, grad_LO: Tensor, for_x: bool = True, for_adapter: bool = True) -> tuple[Any, ...]:
        given = (x_LI, grad_LO, self.weight_OI, self.packed_OP, self.a_RI, self.b_OR, SCALE)
        return subject.gradients(*given, for_x=for_x, for_adapter=for_adapter)

    def true(self) -> list[Tensor]:
        """The same in float64, by the formulae."""
        x_LI, grad_LO, a_RI, b_OR = (one.double() for one in (self.x_LI, self.grad_LO, self.a_RI, self.b_OR))
        hat_OI = self.weight_OI.double() + SCALE * (b_OR @ a_RI) * self.mask_OI
        masked_OI = (grad_LO.t() @ x_LI) * self.mask_OI
        return [
            x_LI @ hat_OI.t() + self.bias_O.double(),
            grad_LO @ hat_OI,
            SCALE * b_OR.t() @ masked_OI,
            SCALE * masked_OI @ a_RI.t(),
        ]

    def tiled(self) -> list[Tensor]:
        """The same by the tiled version."""
        parts = [one.clone().requires_grad_() for one in (self.x_LI, self.a_RI, self.b_OR)]
        y_LO = masked_linear(parts[0], self.weight_OI, self.bias_O, self.packed_OP, parts[1], parts[2], SCALE)
        return [y_LO, *torch.autograd.grad(y_LO, parts, self.grad_LO)]


def errors(found: list[Tensor], true: list[Tensor]) -> list[float]:
    pairs = zip(found, true, strict=True)
    return [float((one.double() - other).norm() / other.norm()) for one, other in pairs]


@pytest.fixture(autouse=True)
def _bfloat16(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Mend two faults of the interpreter: it multiplies the bits of bfloat16 as integers, and rounds to it towards zero."""
    if not INTERPRETED:
        yield
        return
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    dot, cast = builder.create_dot, builder.cast_impl

    def widened(self: Any, handle: Any) -> Any:
        return self.cast_impl(handle, tl.float32) if handle.dtype.scalar == tl.bfloat16 else handle

    def rounded(self: Any, handle: Any, to: Any) -> Any:
        if (handle.dtype.scalar, to.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, handle, to)
        bits = torch.from_numpy(handle.data.copy()).bfloat16().view(torch.uint16).numpy()
        return interpreter.TensorHandle(bits, tl.bfloat16)

    monkeypatch.setattr(
        builder, "create_dot", lambda self, a, b, *more: dot(self, widened(self, a), widened(self, b), *more)
    )
    monkeypatch.setattr(builder, "cast_impl", rounded)
    yield


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
@pytest.mark.parametrize("chosen", ["not slow", "slow"])
def test_in_the_interpreter(chosen: str) -> None:
    import triton

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9):
        pytest.skip("the interpreter of Triton 3.4 and 3.6 does not run with NumPy 2.4")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", __file__, "-k", "cpu"]
    command += ["-m", f"{chosen} and not gpu"]
    root = Path(__file__).parents[3]
    ran = subprocess.run(command, cwd=root, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("types", TYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_are_those_of_float64(shape: Any, types: Any, device: str) -> None:
    """A and B are float32, and so are their gradients: where x is a half type, they are within 9e-6 in the interpreter."""
    case = Case(shape, types, device)
    found = case.found(case.x_LI, case.grad_LO)
    assert [one.dtype for one in found] == [types[0], types[0], FULL, FULL]
    product, adapter = PRODUCTS[types[0]], 1e-5 if types[0] == FULL else 2e-5
    bounds = [product, product, adapter, adapter]
    assert [error < bound for error, bound in zip(errors(found, case.true()), bounds, strict=True)] == [True] * 4


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("types", [(FULL, FULL), (BRAIN, BRAIN)], ids=str)
def test_values_are_those_of_the_tiled_version(types: Any, device: str) -> None:
    case = Case((70, 33, 29, 4), types, device)
    apart = errors(case.found(case.x_LI, case.grad_LO), [one.detach().double() for one in case.tiled()])
    assert [error < 2 * PRODUCTS[types[0]] for error in apart] == [True] * 4


@pytest.mark.parametrize("device", DEVICES)
def test_the_layer_takes_its_products_from_the_kernels(device: str) -> None:
    case = Case(SMALL, (FULL, FULL), device)
    parts = [one.clone().requires_grad_() for one in (case.x_LI, case.a_RI, case.b_OR)]
    y_LO = masked_linear(parts[0], case.weight_OI, case.bias_O, case.packed_OP, parts[1], parts[2], SCALE, "triton")
    found = [y_LO, *torch.autograd.grad(y_LO, parts, case.grad_LO)]
    assert all(torch.equal(one, other) for one, other in zip(found, case.found(case.x_LI, case.grad_LO), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [FULL, BRAIN], ids=str)
def test_the_same_bytes_every_time(dtype: torch.dtype, device: str) -> None:
    case = Case((70, 33, 29, 4), (dtype, dtype), device)
    first, second = case.found(case.x_LI, case.grad_LO), case.found(case.x_LI, case.grad_LO)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_are_sums_over_strips(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case((5, 70, 140, 3), (FULL, FULL), device)
    monkeypatch.setattr(subject, "SCRATCH", 1)
    assert [error < 1e-5 for error in errors(case.found(case.x_LI, case.grad_LO), case.true())] == [True] * 4


@pytest.mark.parametrize("device", DEVICES)
def test_strided_and_broadcast_tensors_are_taken(device: str) -> None:
    case = Case(SMALL, (FULL, FULL), device)
    case.grad_LO = case.grad_LO[:1].expand(5, -1)
    expected = case.found(case.x_LI, case.grad_LO.contiguous())
    case.packed_OP = torch.stack([case.packed_OP, case.packed_OP], 2)[..., 0]
    found = case.found(case.x_LI.t().contiguous().t(), case.grad_LO)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_only_what_is_asked_for_is_computed(device: str) -> None:
    case = Case(SMALL, (FULL, FULL), device)
    dx_LI, *adapter = case.gradients(case.x_LI, case.grad_LO)
    x_alone = case.gradients(case.x_LI, case.grad_LO, for_adapter=False)
    adapter_alone = case.gradients(case.x_LI, case.grad_LO, for_x=False)
    assert torch.equal(x_alone[0], dx_LI)
    assert x_alone[1:] == (None, None)
    assert adapter_alone[0] is None
    assert all(torch.equal(one, other) for one, other in zip(adapter_alone[1:], adapter, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_a_layer_may_have_no_bias(device: str) -> None:
    case = Case(SMALL, (FULL, FULL), device)
    y_LO = subject.forward(case.x_LI, case.weight_OI, None, case.packed_OP, case.a_RI, case.b_OR, SCALE)
    torch.testing.assert_close(y_LO + case.bias_O, case.found(case.x_LI, case.grad_LO)[0])


@pytest.mark.parametrize("device", DEVICES)
def test_no_tokens_give_no_gradient(device: str) -> None:
    case = Case((0, 19, 13, 3), (FULL, FULL), device)
    y_LO, dx_LI, da_RI, db_OR = case.found(case.x_LI, case.grad_LO)
    assert (y_LO.shape, dx_LI.shape) == ((0, 19), (0, 13))
    assert not da_RI.any()
    assert not db_OR.any()


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_supported(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x_LI, weight_OI = torch.zeros(2, 8, device=device), torch.zeros(4, 8, device=device)
    assert support.supports(x_LI, weight_OI, 128)
    assert support.supports(x_LI, weight_OI.bfloat16(), 16)
    assert not support.supports(x_LI, weight_OI, 129)
    assert not support.supports(x_LI.double(), weight_OI, 16)
    assert not support.supports(x_LI, weight_OI.double(), 16)
    assert not support.supports(x_LI, weight_OI.to("meta"), 16)
    assert support.supports(x_LI.bfloat16(), weight_OI, 16) == (device == "cuda")
    monkeypatch.setattr(support, "_installed", lambda: False)
    assert not support.supports(x_LI, weight_OI, 16)


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
def test_a_cpu_without_the_interpreter_is_not_supported() -> None:
    assert not support.supports(torch.zeros(2, 8), torch.zeros(4, 8), 16)


def test_factors_of_half_types_leave_little_out() -> None:
    case = Case((1, 64, 96, 16), (BRAIN, BRAIN), "cpu")
    a_KI, b_OK = subject._factors(case.a_RI, case.b_OR, BRAIN)
    assert (a_KI.dtype, b_OK.dtype) == (BRAIN, BRAIN)
    apart = b_OK.double() @ a_KI.double() - case.b_OR.double() @ case.a_RI.double()
    assert (apart.abs() <= 2**-16 * (case.b_OR.double().abs() @ case.a_RI.double().abs())).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [FULL, BRAIN], ids=str)
def test_no_masked_weight_in_memory(dtype: torch.dtype) -> None:
    """Beside its results a step takes the parts of sums, at most 8 MiB here, and the factors; W has 32 or 64 MiB."""
    case = Case((512, 4096, 4096, 16), (dtype, dtype), "cuda")
    case.found(case.x_LI, case.grad_LO)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = case.found(case.x_LI, case.grad_LO)
    taken = torch.cuda.max_memory_allocated() - before - sum(one.nbytes for one in found)
    assert taken < 12 * 2**20 < case.weight_OI.nbytes / 2
