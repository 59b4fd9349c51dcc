"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) in the weights' own type.

`torch.optim.Muon` makes the gradient orthogonal in bfloat16, which a CPU without bf16 products computes some thirty times as
slowly as float32: half of a step of `smol`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Coefficients of the quintic iteration, those of the source."""

_EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov's) whose update is made orthogonal; for matrices only; no weight decay."""

    def __init__(self, parameters: Iterable[Tensor], momentum: float = 0.95, iterations: int = 5) -> None:
        super().__init__(parameters, {"lr": 0.0, "momentum": momentum, "iterations": iterations})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                update_OI = orthogonal(weight.grad.lerp(buffer, group["momentum"]), group["iterations"])
                rate = group["lr"] * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.sub_(update_OI, alpha=rate)


def orthogonal(matrix_OI: Tensor, iterations: int) -> Tensor:
    """Return a matrix with the same singular vectors, its singular values near 1 (between some 0.5 and 1.5)."""
    wide = matrix_OI.shape[0] <= matrix_OI.shape[1]
    turned = matrix_OI if wide else matrix_OI.T
    turned = turned / turned.norm().clamp(min=_EPSILON)
    for _ in range(iterations):
        gram = turned @ turned.T
        turned = torch.addmm(turned, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), turned, beta=_A)
    return turned if wide else turned.T
