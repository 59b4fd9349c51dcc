"""Masked full fine-tuning: every kept weight is trained, the most that can be trained without moving a zero.

Shapes: O out features, I in features; `*` any leading dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmc.toolchain.repair.kernels import unpack
from vlmc.toolchain.repair.methods.base import Adapted


class MaskedFull(Adapted):
    """`W_hat = W + D * M` with D (O, I) trained whole: four times the memory of the weight in training."""

    parts = ("delta",)

    def begin(self, generator: torch.Generator) -> None:
        self.delta = nn.Parameter(self.zeros(*self.weight.shape))

    def adapted(self, x: Tensor) -> Tensor:
        return F.linear(x, self._hat(), self.bias)

    @torch.no_grad()
    def merged(self) -> Tensor:
        return self._hat().to(self.weight.dtype)

    def _hat(self) -> Tensor:
        if self.packed_OP is None:
            return self.weight + self.delta
        return self.weight + self.delta * unpack(self.packed_OP, self.weight.shape[1], self.delta.dtype)
