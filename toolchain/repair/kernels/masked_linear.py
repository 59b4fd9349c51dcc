"""The linear map of a masked low-rank update, with the exact gradient and nothing kept that is as large as the weight.

`y = x W_hat^T + bias` with `W_hat = W + s (B A) * M`. Autograd through that expression keeps W_hat from the forward to the
backward pass. Here x, W, A, B and the packed mask are kept, all of which are there anyway, and W_hat is made again tile by
tile: rows of it forward, columns backward, so that no output is a sum over tiles that is rounded in between.
Shapes: L tokens, O out features, I in features, R rank, P bytes that hold the bits of I; T a tile of O, J a tile of I.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.library import custom_op

from vlmc.toolchain.repair.kernels import triton_calls
from vlmc.toolchain.settings import Kernel

TILE = 2**20
"""Weights in a tile, of which two are alive at a time.

By the step times of layers 1024 and 4096 wide on a CPU: smaller tiles slow the products, larger ones leave the cache.
"""
NARROWEST = 384
"""Rows or columns of a tile at least, a multiple of 8: in layers 4096 and 11008 wide narrower tiles slow the products."""


def masked_linear(
    x: Tensor,
    weight_OI: Tensor,
    bias_O: Tensor | None,
    packed_OP: Tensor,
    a_RI: Tensor,
    b_OR: Tensor,
    scale: float,
    kernel: Kernel = "tiled",
) -> Tensor:
    """Map x (*, I) to `x (W + s (B A) * M)^T + bias` (*, O); gradients flow to x, A, B, and to W and bias where asked.

    W_hat and the gradients of A and B are computed in float32 at least and rounded once; the products with x take x's
    type, which under autocast is autocast's. Relative errors to float64: under 1e-6 in float32; in bfloat16 2e-3 to 3e-3,
    where autograd through the masked weight has 2.5e-3 to 4e-3. A second derivative is refused with a RuntimeError.
    `kernel`: this module's tiles, or `triton_calls`'s kernels.
    """
    return call(Gradients, x, weight_OI, bias_O, packed_OP, a_RI, b_OR, scale, kernel)


def call(function: type["Gradients"], x: Tensor, *others: Any) -> Tensor:
    """Apply the map with gradients of this kind to x, in autocast's type where that is on."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    with no_autocast(device):
        stub: Tensor = function.apply(x, *others)  # type: ignore[no-untyped-call]
        held = (one.detach() if isinstance(one, Tensor) else one for one in (x, *others))
        y: Tensor = _Product.apply(stub, *held)  # type: ignore[no-untyped-call]
    return y


def updated(weight_OI: Tensor, mask_OI: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
    """Return `W + s (B A) * M` (O, I) in the type of the mask; only where gradients are off."""
    product_OI = b_OR.to(mask_OI.dtype) @ a_RI.to(mask_OI.dtype)
    return torch.addcmul(weight_OI.to(mask_OI.dtype), mask_OI, product_OI, value=scale, out=product_OI)


def wide(tensor: Tensor) -> torch.dtype:
    """Return float32, or the tensor's own type where that is wider."""
    return torch.promote_types(tensor.dtype, torch.float32)


def pack(mask_OI: Tensor) -> Tensor:
    """Pack a boolean mask (O, I) into bytes (O, ceil(I / 8)), high bit first, as `masks.safetensors` does."""
    padded_OI = torch.nn.functional.pad(mask_OI.to(torch.uint8), (0, -mask_OI.shape[1] % 8))
    places_8 = torch.arange(7, -1, -1, dtype=torch.uint8, device=mask_OI.device)
    return (padded_OI.view(len(padded_OI), -1, 8) << places_8).sum(2, dtype=torch.uint8)


def unpack(packed_OP: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Return the mask (O, I) of packed bytes as ones and zeros of that type."""
    table = _bits(packed_OP.device, dtype)
    return table.index_select(0, packed_OP.reshape(-1).int()).view(len(packed_OP), -1)[:, :columns]


class Gradients(Function):
    """The gradients of `masked_linear`, for a stub of y that takes no memory; `_Product` puts y in its place.

    What is kept is thus kept before the product is made. Where a block is made again in the backward pass (activation
    checkpointing that is not reentrant), torch stops as soon as it has all that was kept: without the last map's product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        packed_OP: Tensor,
        a_RI: Tensor,
        b_OR: Tensor,
        scale: float,
        kernel: Kernel,
    ) -> Tensor:
        ctx.save_for_backward(x, weight_OI, packed_OP, a_RI, b_OR)
        ctx.scale, ctx.kernel = scale, kernel
        return x.new_zeros(()).expand(*x.shape[:-1], len(weight_OI))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with no_autocast(grad.device.type):
            return gradients(ctx, grad, ctx.needs_input_grad)


class _Product(Function):
    """y in the place of its stub, whose gradient is y's."""

    @staticmethod
    def forward(ctx: Any, stub: Tensor, x: Tensor, *others: Any) -> Tensor:
        y_LO: Tensor = product(x.reshape(-1, x.shape[-1]), *others)
        return y_LO.view(stub.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*grads, *[None] * 8)


def gradients(ctx: Any, grad: Tensor, asked: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Return the gradients of all that `forward` takes, None where none is asked for."""
    x, weight_OI, packed_OP, a_RI, b_OR = ctx.saved_tensors
    for_x, for_weight, for_bias, _, for_a, for_b, *_ = asked
    x_LI, grad_LO = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1]).contiguous()
    found = backward_product(x_LI, grad_LO, weight_OI, packed_OP, a_RI, b_OR, ctx.scale, ctx.kernel, for_x, for_a or for_b)
    return (
        found[0].view_as(x) if for_x else None,
        (grad_LO.t() @ x_LI).to(weight_OI.dtype) if for_weight else None,
        grad_LO.sum(0) if for_bias else None,
        None,
        found[-2] if for_a else None,
        found[-1] if for_b else None,
        None,
        None,
    )


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
    """Return `x W_hat^T + bias` (L, O) in the type of x: one operator to torch.compile, which never sees W_hat."""
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
    """Return the gradients of what is asked for, each in its own type: of x (L, I); of A (R, I) and B (O, R)."""
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


def no_autocast(device: str) -> AbstractContextManager[Any]:
    """Return a context in which autocast is off."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _tiles(count: int, fitting: int) -> Iterator[slice]:
    """Cut a range into tiles whose length is a multiple of 8, so that they begin at a whole byte of packed bits."""
    length = max(NARROWEST, fitting // 8 * 8)
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


@cache
def _bits(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the eight bits of every byte (256, 8), high bit first."""
    places_8 = torch.arange(7, -1, -1, device=device)
    return (torch.arange(256, device=device).unsqueeze(1) >> places_8 & 1).to(dtype)
