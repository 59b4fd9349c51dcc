"""The two products of the masked linear map, computed tile by tile, as operators that torch.compile does not look into.

W_hat is recomputed tile by tile: rows of it forward, columns of it backward, so that no output is a sum over tiles that is
rounded in between. torch.compile sees one operator for each product, so it cannot keep W_hat.
Shapes: L tokens, O out features, I in features, R rank, P bytes that hold the bits of I; T a tile of O, J a tile of I.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from vlmc.toolchain.repair.kernels import triton_calls
from vlmc.toolchain.repair.kernels.packing import unpack, updated, wide

TILE = 2**20
"""Weights in a tile, of which two are alive at a time.

Chosen by step times of layers 1024 and 4096 wide on a CPU: smaller tiles slow the products, larger ones leave the cache.
"""
NARROWEST = 384
"""Least rows or columns of a tile, a multiple of 8: in layers 4096 and 11008 wide narrower tiles slow the products."""


@custom_op("vlmc::masked_linear", mutates_args=())
def product(
    x_LI: Tensor,
    weight_OI: Tensor,
    bias_O: Tensor | None,
    packed_OP: Tensor,
    a_RI: Tensor,
    b_OR: Tensor,
    scale: float,
    kernel: str,
) -> Tensor:
    """Return `x W_hat^T + bias` (L, O) in the type of x."""
    if kernel == "triton":
        return triton_calls.forward(x_LI, weight_OI, bias_O, packed_OP, a_RI, b_OR, scale)
    rows, columns = weight_OI.shape
    y_LO = x_LI.new_empty(len(x_LI), rows)
    for T in _tiles(rows, TILE // columns):
        mask_TI = unpack(packed_OP[T], columns, wide(weight_OI))
        hat_TI = updated(weight_OI[T], mask_TI, a_RI, b_OR[T], scale).to(x_LI.dtype)
        del mask_TI
        if bias_O is None:
            torch.mm(x_LI, hat_TI.t(), out=y_LO[:, T])
        else:
            torch.addmm(bias_O[T].to(x_LI.dtype), x_LI, hat_TI.t(), out=y_LO[:, T])
    return y_LO


@product.register_fake
def _(x_LI: Tensor, weight_OI: Tensor, *others: Any) -> Tensor:
    return x_LI.new_empty(len(x_LI), len(weight_OI))


@custom_op("vlmc::masked_linear_backward", mutates_args=())
def backward_product(
    x_LI: Tensor,
    grad_LO: Tensor,
    weight_OI: Tensor,
    packed_OP: Tensor,
    a_RI: Tensor,
    b_OR: Tensor,
    scale: float,
    kernel: str,
    for_x: bool,
    for_adapter: bool,
) -> list[Tensor]:
    """Return the gradients that are asked for, each in its own type: of x (L, I); of A (R, I) and B (O, R)."""
    if kernel == "triton":
        given = (x_LI, grad_LO, weight_OI, packed_OP, a_RI, b_OR, scale)
        found = triton_calls.gradients(*given, for_x=for_x, for_adapter=for_adapter)
        return [one for one in found if one is not None]
    rows, columns = weight_OI.shape
    type_, dx_LI = wide(weight_OI), torch.empty_like(x_LI) if for_x else None
    da_RI, db_OR = torch.empty_like(a_RI, dtype=type_), torch.zeros_like(b_OR, dtype=type_)
    for J in _tiles(columns, TILE // rows):
        a_RJ, mask_OJ = a_RI[:, J], unpack(packed_OP[:, J.start // 8 : -(-J.stop // 8)], J.stop - J.start, type_)
        if dx_LI is not None:
            torch.mm(grad_LO, updated(weight_OI[:, J], mask_OJ, a_RJ, b_OR, scale).to(x_LI.dtype), out=dx_LI[:, J])
        if for_adapter:
            masked_OJ = (grad_LO.t() @ x_LI[:, J]).to(type_).mul_(mask_OJ)
            torch.mm(b_OR.to(type_).t(), masked_OJ, out=da_RI[:, J])
            db_OR.addmm_(masked_OJ, a_RJ.to(type_).t())
            del masked_OJ
    of_adapter = [da_RI.mul_(scale).to(a_RI.dtype), db_OR.mul_(scale).to(b_OR.dtype)] if for_adapter else []
    return of_adapter if dx_LI is None else [dx_LI, *of_adapter]


@backward_product.register_fake
def _(x_LI: Tensor, grad_LO: Tensor, weight_OI: Tensor, packed_OP: Tensor, *others: Any) -> list[Tensor]:
    a_RI, b_OR, _, _, for_x, for_adapter = others
    of_adapter = [torch.empty_like(a_RI), torch.empty_like(b_OR)] if for_adapter else []
    return [torch.empty_like(x_LI), *of_adapter] if for_x else of_adapter


def _tiles(count: int, fitting: int) -> Iterator[slice]:
    """Cut a range into tiles whose length is a multiple of 8, so that they begin at a whole byte of packed bits."""
    length = max(NARROWEST, fitting // 8 * 8)
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))
