"""The masked low-rank map and its gradients on a GPU, by the Triton kernels of `triton_kernels`.

The mask, the low-rank product and the product with x are one kernel: W_hat exists as blocks in registers and shared memory
alone. The reference is the version in `tiled`: the same values within rounding, not the same bytes.
x and W are float32, bfloat16 or float16, each its own; W_hat is rounded to x's type, and every sum is float32. A float32
product is IEEE, never TF32. Where x is a half type, products of A, B and G are of bfloat16 parts (`_factors`).

**No GPU has run these kernels.** They are checked by Triton's interpreter on a CPU, and compiled ahead of time for sm80,
sm86, sm90 and sm120 (`tests/repair/kernels/test_triton_builds.py`). No time has been measured: the blocks were chosen by
what the compiler reports of registers and shared memory. They are fixed by type and rank, and no autotuner picks them:
blocks set the order of sums, and the same seed on the same machine must give the same bytes.
Shapes: L tokens, O out features, I in features, R rank, K ranks as the kernels see them, P bytes that hold the bits of I;
J a strip of I; M and N count blocks of O and of J.
"""

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Blocks(NamedTuple):
    """Lengths of a kernel's blocks of L, O and I; warps per program; steps that are loaded ahead."""

    tokens: int
    rows: int
    columns: int
    warps: int
    stages: int


FORWARD = {2: Blocks(256, 64, 32, 8, 3), 4: Blocks(128, 64, 16, 8, 2)}
"""By the bytes of x's type. W_hat is computed once for each block of tokens, so these are long."""
FOR_X = {2: Blocks(256, 32, 64, 8, 3), 4: Blocks(128, 16, 64, 8, 2)}
FOR_ADAPTER = {2: Blocks(64, 128, 64, 8, 3), 4: Blocks(16, 64, 64, 8, 2)}
GROUP = 8
"""Neighbouring blocks of tokens in a launch, which find the same rows of W in the cache."""
SCRATCH = 2**21
"""Most float32 values in partial sums: 8 MiB, as the two tiles of the tiled version take."""


def forward(
    x_LI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, packed_OP: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float
) -> Tensor:
    """Return `x (W + s (B A) * M)^T + bias` (L, O) in x's type."""
    tokens, rows = len(x_LI), len(weight_OI)
    y_LO = x_LI.new_empty(tokens, rows)
    blocks = _fitting(FORWARD[x_LI.dtype.itemsize], len(a_RI))
    programs = _count(tokens, blocks.tokens) * _count(rows, blocks.rows)
    a_KI, b_OK = _factors(a_RI, b_OR, x_LI.dtype)
    tensors = (x_LI, weight_OI, bias_O, packed_OP, a_KI, b_OK, y_LO)
    sizes = (tokens, rows, x_LI.shape[1], len(a_KI))
    _launch(_kernels().forward, (programs, 1), blocks, *tensors, float(scale), *sizes, **_constants(len(a_KI)))
    return y_LO


def gradients(
    x_LI: Tensor,
    grad_LO: Tensor,
    weight_OI: Tensor,
    packed_OP: Tensor,
    a_RI: Tensor,
    b_OR: Tensor,
    scale: float,
    *,
    for_x: bool,
    for_adapter: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return dx (L, I) in x's type, dA (R, I) and dB (O, R) in theirs; None for what is not asked for.

    `dx = g W_hat`; `dA = s B^T G`, `dB = s G A^T` with `G = (g^T x) * M`, of which each block stays in its program.
    """
    x_LI, grad_LO = x_LI.contiguous(), grad_LO.contiguous()
    dx_LI = _of_x(x_LI, grad_LO, weight_OI, packed_OP, a_RI, b_OR, scale) if for_x else None
    da_RI, db_OR = _of_adapter(x_LI, grad_LO, packed_OP, a_RI, b_OR, scale) if for_adapter else (None, None)
    return dx_LI, da_RI, db_OR


def _of_x(
    x_LI: Tensor, grad_LO: Tensor, weight_OI: Tensor, packed_OP: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float
) -> Tensor:
    """Return dx (L, I)."""
    tokens, columns = x_LI.shape
    dx_LI = x_LI.new_empty(tokens, columns)
    blocks = _fitting(FOR_X[x_LI.dtype.itemsize], len(a_RI))
    programs = _count(tokens, blocks.tokens) * _count(columns, blocks.columns)
    a_KI, b_OK = _factors(a_RI, b_OR, x_LI.dtype)
    tensors = (grad_LO, weight_OI, packed_OP, a_KI, b_OK, dx_LI)
    sizes = (tokens, len(weight_OI), columns, len(a_KI))
    _launch(_kernels().gradient_of_x, (programs, 1), blocks, *tensors, float(scale), *sizes, **_constants(len(a_KI)))
    return dx_LI


def _of_adapter(
    x_LI: Tensor, grad_LO: Tensor, packed_OP: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return dA (R, I) and dB (O, R), strip by strip of the columns.

    A program gives its block's part of both. The parts of a strip are float32 and added in a fixed order. Blocks of J are
    taken into a strip as long as the parts are SCRATCH values at most; those of one block, about 1.5 R O values where x is
    a half type and 2 R O where it is float32, are within that up to rank 128 at O = 8192, rank 16 at O = 65536.
    """
    (rank, columns), rows = a_RI.shape, len(b_OR)
    blocks = FOR_ADAPTER[x_LI.dtype.itemsize]
    fitting = max(1, SCRATCH // (rank * (_count(rows, blocks.rows) * blocks.columns + rows)))
    da_RI, db_OR = a_RI.new_empty(rank, columns, dtype=torch.float32), b_OR.new_zeros(rows, rank, dtype=torch.float32)
    factors = _factors(a_RI, b_OR, x_LI.dtype)
    for start in range(0, columns, fitting * blocks.columns):
        da_RJ = da_RI[:, start : start + fitting * blocks.columns]
        _strip(da_RJ, db_OR, start, blocks, (x_LI, grad_LO, packed_OP, *factors))
    return da_RI.mul_(scale).to(a_RI.dtype), db_OR.mul_(scale).to(b_OR.dtype)


def _strip(da_RJ: Tensor, db_OR: Tensor, start: int, blocks: Blocks, tensors: tuple[Tensor, ...]) -> None:
    """Write `B^T G_J` to da (R, J) and add `G_J A_J^T` to db (O, R), for the columns J from `start`."""
    x_LI, _, _, a_KI, _ = tensors
    (rank, width), rows = da_RJ.shape, len(db_OR)
    da_MRJ = da_RJ.new_empty(_count(rows, blocks.rows), rank, width)
    db_NOR = db_OR.new_empty(_count(width, blocks.columns), rows, rank)
    sizes = (start, width, len(x_LI), rows, x_LI.shape[1], rank)
    constants = {"CHUNK": 16, "PARTS": len(a_KI) // rank}
    grid = (len(da_MRJ), len(db_NOR))
    _launch(_kernels().gradient_of_adapter, grid, blocks, *tensors, da_MRJ, db_NOR, *sizes, **constants)
    torch.sum(da_MRJ, 0, out=da_RJ)
    db_OR += db_NOR.sum(0)


def _factors(a_RI: Tensor, b_OR: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return A (K, I) and B (O, K) whose product is B A, in types that a GPU multiplies as fast as x.

    For a half type each factor is a sum of two bfloat16 parts, and of the four products of parts the three greater ones are
    taken: `[B1 B2 B1] [A1; A1; A2]`. What is left out is under 2^-16 of |B| |A|; float16 itself rounds to 2^-11. The
    kernel of dA and dB splits G in the same way.
    """
    if dtype == torch.float32:
        return a_RI.float(), b_OR.float()
    (a1_RI, a2_RI), (b1_OR, b2_OR) = _parts(a_RI), _parts(b_OR)
    return torch.cat([a1_RI, a1_RI, a2_RI]), torch.cat([b1_OR, b2_OR, b1_OR], dim=1)


def _parts(factor: Tensor) -> tuple[Tensor, Tensor]:
    first = factor.bfloat16()
    return first, (factor.float() - first).bfloat16()


def _fitting(blocks: Blocks, rank: int) -> Blocks:
    """Load fewer steps ahead, then take smaller blocks, where ranks need shared memory: 99 KiB on the smallest GPUs."""
    if rank <= 32:
        return blocks
    fewer = blocks._replace(stages=2)
    return fewer if rank <= 64 else fewer._replace(rows=min(32, blocks.rows), columns=min(32, blocks.columns))


def _constants(ranks: int) -> dict[str, int]:
    """Return how many ranks one product takes, at least 16, and all ranks rounded up to that; and GROUP."""
    chunk = 16 if ranks <= 48 else 32 if ranks <= 192 else 64
    return {"GROUP": GROUP, "RANKS": _count(ranks, chunk) * chunk, "CHUNK": chunk}


def _count(length: int, block: int) -> int:
    return -(-length // block)


def _launch(kernel: Any, grid: tuple[int, int], blocks: Blocks, *arguments: Any, **constants: Any) -> None:
    """Run a kernel on the GPU of its first tensor; what is not contiguous is copied first."""
    if not all(grid):
        return
    dense = [one.contiguous() if isinstance(one, Tensor) else one for one in arguments]
    lengths = {"BLOCK_L": blocks.tokens, "BLOCK_O": blocks.rows, "BLOCK_I": blocks.columns}
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages, "enable_fp_fusion": True}
    with torch.cuda.device(dense[0].get_device()):
        kernel[grid](*dense, **lengths, **constants, **options)


def _kernels() -> ModuleType:
    """Import the kernels, for which triton must be there."""
    from vlmc.toolchain.repair.kernels import triton_kernels

    return triton_kernels
