"""The linear map of a masked low-rank update, with the exact gradient; nothing as large as the weight is kept for it.

`y = x W_hat^T + bias` with `W_hat = W + s (B A) * M`. Autograd through that expression keeps W_hat from the forward to the
backward pass. Here only x, W, A, B and the packed mask are kept, which are in memory anyway, and W_hat is recomputed.
Shapes: L tokens, O out features, I in features, R rank, P bytes that hold the bits of I; `*` any leading dimensions.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vlmc.toolchain.repair.kernels.tiled import backward_product, product
from vlmc.toolchain.settings import Kernel


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
    `kernel`: `tiled`'s tiles, or `triton_calls`'s kernels.
    """
    return call(Gradients, x, weight_OI, bias_O, packed_OP, a_RI, b_OR, scale, kernel)


def call(function: type["Gradients"], x: Tensor, *others: Any) -> Tensor:
    """Apply the map to x with the gradients of `function`; under autocast in its type."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    with no_autocast(device):
        stub: Tensor = function.apply(x, *others)  # type: ignore[no-untyped-call]
        held = (one.detach() if isinstance(one, Tensor) else one for one in (x, *others))
        y: Tensor = _Product.apply(stub, *held)  # type: ignore[no-untyped-call]
    return y


class Gradients(Function):
    """The gradients of `masked_linear`, for a stub of y that takes no memory; `_Product` puts y in its place.

    So the tensors for the backward pass are kept before the product is computed. Where a block is recomputed (gradient
    checkpointing that is not reentrant), torch stops once it has all that was kept: without the last map's product.
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
    """Return a gradient for each argument of `forward`, None where none is asked for."""
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


def no_autocast(device: str) -> AbstractContextManager[Any]:
    """Return a context in which autocast is off."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
