"""Triton kernels of the masked low-rank update; imported by `triton_calls` alone, and only where triton is.

A block of `W_hat = W + s (B A) * M` is made in registers from its block of W, the mask's bits and the two factors, and one
product uses it at once; no kernel writes W_hat or G = (g^T x) * M to global memory. Sums run in float32, in an order that
the block sizes alone set: there is no atomic operation.
Shapes: L tokens, O out features, I in features, R rank, P bytes that hold the bits of I; U, T and J blocks of L, O and I;
C a chunk of ranks; Q the bytes that hold the bits of J. Tensors come as pointers to contiguous memory.
"""

import triton
import triton.language as tl


@triton.jit
def forward(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, packed: tl.tensor, a: tl.tensor, b: tl.tensor, y: tl.tensor,
    scale: tl.tensor, tokens: tl.tensor, rows: tl.tensor, columns: tl.tensor, rank: tl.tensor,
    BLOCK_L: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, GROUP: tl.constexpr, RANKS: tl.constexpr,
    CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    """Write a block (U, T) of `y = x W_hat^T + bias` (L, O)."""
    u, t = place(tl.cdiv(tokens, BLOCK_L), tl.cdiv(rows, BLOCK_O), GROUP)
    l_U, o_T = span(u * BLOCK_L, BLOCK_L), span(t * BLOCK_O, BLOCK_O)
    y_UT = tl.zeros((BLOCK_L, BLOCK_O), tl.float32)
    for first in range(0, columns, BLOCK_I):
        i_J = span(first, BLOCK_I)
        keep_TJ = kept(packed, o_T, first, rows, columns, BLOCK_O, BLOCK_I)
        hat_TJ = updated(weight, keep_TJ, a, b, scale, o_T, i_J, rows, columns, rank, BLOCK_O, BLOCK_I, RANKS, CHUNK)
        x_UJ = block(x, l_U, i_J, tokens, columns)
        y_UT = tl.dot(x_UJ, tl.trans(hat_TJ.to(x_UJ.dtype)), y_UT, input_precision="ieee")
    if bias is not None:
        bias_T = tl.load(bias + o_T, mask=o_T < rows, other=0.0).to(y.dtype.element_ty)
        y_UT += bias_T.to(tl.float32)[None, :]
    store(y, y_UT, l_U, o_T, tokens, rows)


@triton.jit
def gradient_of_x(
    grad: tl.tensor, weight: tl.tensor, packed: tl.tensor, a: tl.tensor, b: tl.tensor, dx: tl.tensor, scale: tl.tensor,
    tokens: tl.tensor, rows: tl.tensor, columns: tl.tensor, rank: tl.tensor,
    BLOCK_L: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, GROUP: tl.constexpr, RANKS: tl.constexpr,
    CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    """Write a block (U, J) of `dx = g W_hat` (L, I)."""
    u, j = place(tl.cdiv(tokens, BLOCK_L), tl.cdiv(columns, BLOCK_I), GROUP)
    l_U, i_J = span(u * BLOCK_L, BLOCK_L), span(j * BLOCK_I, BLOCK_I)
    dx_UJ = tl.zeros((BLOCK_L, BLOCK_I), tl.float32)
    for first in range(0, rows, BLOCK_O):
        o_T = span(first, BLOCK_O)
        keep_TJ = kept(packed, o_T, j * BLOCK_I, rows, columns, BLOCK_O, BLOCK_I)
        hat_TJ = updated(weight, keep_TJ, a, b, scale, o_T, i_J, rows, columns, rank, BLOCK_O, BLOCK_I, RANKS, CHUNK)
        grad_UT = block(grad, l_U, o_T, tokens, rows)
        dx_UJ = tl.dot(grad_UT, hat_TJ.to(grad_UT.dtype), dx_UJ, input_precision="ieee")
    store(dx, dx_UJ, l_U, i_J, tokens, columns)


@triton.jit
def gradient_of_adapter(
    x: tl.tensor, grad: tl.tensor, packed: tl.tensor, a: tl.tensor, b: tl.tensor, da: tl.tensor, db: tl.tensor,
    strip: tl.tensor, width: tl.tensor, tokens: tl.tensor, rows: tl.tensor, columns: tl.tensor, rank: tl.tensor,
    BLOCK_L: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, CHUNK: tl.constexpr, PARTS: tl.constexpr,
) -> None:  # fmt: skip
    """Write a block's part `B_T^T G_TJ` to da (blocks of O, R, width) and `G_TJ A_J^T` to db (blocks of I, O, R).

    Only columns of one strip are taken: `width` of them, from column `strip`. With three PARTS, a and b are those of
    `_factors`, and G is split as they are. The two loops are apart so that the two layouts of G that they need are not in
    shared memory at the same time.
    """
    t, j = tl.program_id(0), tl.program_id(1)
    first = strip + j * BLOCK_I
    o_T, i_J = span(t * BLOCK_O, BLOCK_O), span(first, BLOCK_I)
    masked_TJ = tl.zeros((BLOCK_O, BLOCK_I), tl.float32)
    for start in range(0, tokens, BLOCK_L):
        l_U = span(start, BLOCK_L)
        grad_UT, x_UJ = block(grad, l_U, o_T, tokens, rows), block(x, l_U, i_J, tokens, columns)
        masked_TJ = tl.dot(tl.trans(grad_UT), x_UJ, masked_TJ, input_precision="ieee")
    keep_TJ = kept(packed, o_T, first, rows, columns, BLOCK_O, BLOCK_I)
    masked_TJ = tl.where(keep_TJ, masked_TJ, 0.0)
    da, db = da + t.to(tl.int64) * rank * width, db + j.to(tl.int64) * rows * rank
    if PARTS == 1:
        high_TJ, low_TJ = masked_TJ, masked_TJ
    else:
        high_TJ = masked_TJ.to(b.dtype.element_ty)
        low_TJ = (masked_TJ - high_TJ.to(tl.float32)).to(b.dtype.element_ty)
    for start in tl.range(0, rank, CHUNK, num_stages=1):
        r_C = span(start, CHUNK)
        b_CT = tl.trans(block(b, o_T, r_C, rows, PARTS * rank))
        da_CJ = tl.dot(b_CT, high_TJ, input_precision="ieee")
        if PARTS > 1:
            da_CJ = tl.dot(b_CT, low_TJ, da_CJ)
            da_CJ = tl.dot(tl.trans(block(b, o_T, rank + r_C, rows, PARTS * rank)), high_TJ, da_CJ)
        store(da, da_CJ, r_C, i_J - strip, rank, width)
    for start in tl.range(0, rank, CHUNK, num_stages=1):
        r_C = span(start, CHUNK)
        a_JC = tl.trans(block(a, r_C, i_J, PARTS * rank, columns))
        db_TC = tl.dot(high_TJ, a_JC, input_precision="ieee")
        if PARTS > 1:
            db_TC = tl.dot(low_TJ, a_JC, db_TC)
            db_TC = tl.dot(high_TJ, tl.trans(block(a, 2 * rank + r_C, i_J, PARTS * rank, columns)), db_TC)
        store(db, db_TC, o_T, r_C, rows, rank)


@triton.jit
def updated(
    weight: tl.tensor, keep_TJ: tl.tensor, a: tl.tensor, b: tl.tensor, scale: tl.tensor, o_T: tl.tensor, i_J: tl.tensor,
    rows: tl.tensor, columns: tl.tensor, rank: tl.tensor,
    BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, RANKS: tl.constexpr, CHUNK: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return a block (T, J) of `W + s (B A) * M` in float32, zero outside W.

    The chunks of ranks are unrolled: a loop here would keep Triton from loading ahead in the loop around it.
    """
    product_TJ = tl.zeros((BLOCK_O, BLOCK_I), tl.float32)
    for start in tl.static_range(0, RANKS, CHUNK):
        r_C = span(start, CHUNK)
        b_TC, a_CJ = block(b, o_T, r_C, rows, rank), block(a, r_C, i_J, rank, columns)
        product_TJ = tl.dot(b_TC, a_CJ, product_TJ, input_precision="ieee")
    return block(weight, o_T, i_J, rows, columns).to(tl.float32) + tl.where(keep_TJ, scale * product_TJ, 0.0)


@triton.jit
def kept(
    packed: tl.tensor, o_T: tl.tensor, first: tl.tensor, rows: tl.tensor, columns: tl.tensor,
    BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return a block (T, J) of the mask, false beyond its bytes; `first`, its first column, is a multiple of 8."""
    p_Q = span(first // 8, BLOCK_I // 8)
    byte_TQ = block(packed, o_T, p_Q, rows, tl.cdiv(columns, 8)).to(tl.int32)
    place_8 = 7 - tl.arange(0, 8)
    return tl.reshape((byte_TQ[:, :, None] >> place_8[None, None, :]) & 1, (BLOCK_O, BLOCK_I)) != 0


@triton.jit
def place(high: tl.tensor, wide: tl.tensor, GROUP: tl.constexpr) -> tl.tuple:
    """Return this program's block in a grid (high, wide), taken in columns of GROUP: neighbours share operands."""
    program = tl.program_id(0)
    return tl.swizzle2d(program // wide, program % wide, high, wide, GROUP)


@triton.jit
def span(first: tl.tensor, LENGTH: tl.constexpr) -> tl.tensor:
    """Return LENGTH indices from `first`."""
    return first + tl.arange(0, LENGTH)


@triton.jit
def block(matrix: tl.tensor, row_M: tl.tensor, column_N: tl.tensor, rows: tl.tensor, columns: tl.tensor) -> tl.tensor:
    """Return the block (M, N) of a matrix, zero outside it. Rows count in 64 bits: x may have more than 2^31 values."""
    inside_MN = (row_M < rows)[:, None] & (column_N < columns)[None, :]
    return tl.load(matrix + row_M.to(tl.int64)[:, None] * columns + column_N[None, :], mask=inside_MN, other=0)


@triton.jit
def store(
    matrix: tl.tensor, value_MN: tl.tensor, row_M: tl.tensor, column_N: tl.tensor, rows: tl.tensor, columns: tl.tensor,
) -> None:  # fmt: skip
    """Write the block (M, N) of a matrix in the matrix's type, as far as it lies inside."""
    inside_MN = (row_M < rows)[:, None] & (column_N < columns)[None, :]
    to_MN = matrix + row_M.to(tl.int64)[:, None] * columns + column_N[None, :]
    tl.store(to_MN, value_MN.to(matrix.dtype.element_ty), mask=inside_MN)
