"""The Triton kernels of the masked linear map are compiled to machine code, for GPUs that need not be there."""

import importlib.util
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.repair.kernels.test_triton_calls import BRAIN, FULL, HALF, SCALE, SMALL, TYPES
from vlmc.toolchain.repair.kernels import triton_calls as subject

KERNELS = ("forward", "gradient_of_x", "gradient_of_adapter")
MEMORY = {80: 163, 86: 99, 90: 227, 120: 99}
"""KiB of shared memory that a program can have, by compute capability."""
BUILDS = [
    *(((2048, 4096, 4096, 16), types, version) for types in TYPES for version in (80, 90)),
    *(((2048, 4096, 4096, 64), (BRAIN, FULL), version) for version in (86, 120)),
    *(((2048, 4096, 4096, 128), types, version) for types in TYPES[::3] for version in (90, 120)),
    *((shape, (BRAIN, BRAIN), 90) for shape in (SMALL, (1, 1, 1, 1))),
]
"""The last two: Triton loads differently what is no multiple of 16 long, and takes a size of 1 for a constant."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]


def launches(monkeypatch: pytest.MonkeyPatch, shape: Any, types: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the arguments and the constants that each kernel is launched with for a layer of that shape; run nothing."""
    found = {}

    def recording(name: str) -> Any:
        return defaultdict(lambda: lambda *arguments, **constants: found.update({name: (arguments, constants)}))

    monkeypatch.setattr(subject, "_kernels", lambda: SimpleNamespace(**{name: recording(name) for name in KERNELS}))
    tokens, rows, columns, rank = shape
    x_LI, grad_LO = (torch.empty(tokens, many, dtype=types[0], device="meta") for many in (columns, rows))
    weight_OI = torch.empty(rows, columns, dtype=types[1], device="meta")
    packed_OP = torch.empty(rows, -(-columns // 8), dtype=torch.uint8, device="meta")
    a_RI, b_OR = torch.empty(rank, columns, device="meta"), torch.empty(rows, rank, device="meta")
    subject.forward(x_LI, weight_OI, weight_OI[:, 0], packed_OP, a_RI, b_OR, SCALE)
    subject.gradients(x_LI, grad_LO, weight_OI, packed_OP, a_RI, b_OR, SCALE, for_x=True, for_adapter=True)
    return found


def build(kernel: Any, arguments: Any, constants: dict[str, Any], version: int) -> Any:
    """Compile a kernel for what it is launched with, as Triton does at a launch, with no GPU."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = {FULL: "fp32", BRAIN: "bf16", HALF: "fp16", torch.uint8: "u8"}
    given = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
    options = {name: given.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion")}
    signature, fixed, aligned = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        value = given[name]
        if name in constants or value is None or (isinstance(value, int) and value == 1):
            signature[name], fixed[name] = "constexpr", value
            continue
        signature[name] = (
            f"*{names[value.dtype]}" if isinstance(value, Tensor) else "fp32" if isinstance(value, float) else "i32"
        )
        if isinstance(value, Tensor) or value % 16 == 0:
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=aligned)
    return compile(source, target=GPUTarget("cuda", version, 32), options=options)


@pytest.mark.parametrize(("shape", "types", "version"), BUILDS, ids=str)
def test_kernels_compile_and_fit(
    shape: Any, types: Any, version: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To machine code, for the arguments that the layer is launched with, and within a GPU's shared memory."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = subject._kernels()
    found = launches(monkeypatch, shape, types)
    assert set(found) == set(KERNELS)
    for name, (arguments, constants) in found.items():
        built = build(getattr(kernels, name), arguments, constants, version)
        assert built.asm["cubin"]
        assert built.metadata.shared <= MEMORY[version] * 1024, name


@pytest.mark.parametrize("dtype", [FULL, BRAIN], ids=str)
def test_nothing_is_stored_but_the_results(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The bytes that a program can store are those of its block of the result: none are left for W_hat or for G."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = subject._kernels()
    for name, (arguments, constants) in launches(monkeypatch, (2048, 4096, 4096, 16), (dtype, dtype)).items():
        code = build(getattr(kernels, name), arguments, constants, 80).asm["ptx"]
        stores = re.findall(r"st\.global(?:\.v(\d))?\.b(\d+)", code)
        stored = sum(int(many or 1) * int(bits) // 8 for many, bits in stores) * 32 * constants["num_warps"]
        tokens, rows, columns = (constants[f"BLOCK_{axis}"] for axis in "LOI")
        adapter = 4 * 16 * (rows + columns)
        results = {"forward": dtype.itemsize * tokens * rows, "gradient_of_x": dtype.itemsize * tokens * columns}
        assert stored == results.get(name, adapter)
        assert code.count("st.global") == len(stores)
        assert not re.search(r"\b(atom|red)\.", code)
