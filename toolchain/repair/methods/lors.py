"""LoRS (arXiv 2501.08582): SparseLoRA's forward pass with a gradient that is cheaper and biased.

The weight is recomputed in the backward pass, as RESSA's is here, but A and B get plain LoRA's gradient, without the mask.
LoRS draws its first values from a gradient; here all methods begin with the same values.
Shapes: L tokens, O out features, I in features, R rank; `*` any leading dimensions.
"""

from typing import Any

from torch import Tensor
from torch.autograd.function import once_differentiable

from vlmc.toolchain.repair.kernels.autograd import Gradients, call, gradients, no_autocast
from vlmc.toolchain.repair.methods.low_rank import MaskedLowRank


class LoRS(MaskedLowRank):
    """`W_hat = W + s (B A) * M`, with `dB = s g^T (x A^T)` and `dA = s (g B)^T x`."""

    def adapted(self, x: Tensor) -> Tensor:
        return call(_Biased, x, self.weight, self.bias, self.packed(), self.lora_A, self.lora_B, self.scale, self.kernel)


class _Biased(Gradients):
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, _, _, a_RI, b_OR = ctx.saved_tensors
        x_LI, grad_LO = x.reshape(-1, x.shape[-1]).to(a_RI.dtype), grad.reshape(-1, grad.shape[-1]).to(b_OR.dtype)
        for_x, for_weight, for_bias, _, for_a, for_b, *_ = ctx.needs_input_grad
        with no_autocast(grad.device.type):
            found = gradients(ctx, grad, (for_x, for_weight, for_bias, False, False, False))
            da_RI = ctx.scale * (grad_LO @ b_OR).t() @ x_LI if for_a else None
            db_OR = ctx.scale * grad_LO.t() @ (x_LI @ a_RI.t()) if for_b else None
        return (*found[:4], da_RI, db_OR, None, None)
