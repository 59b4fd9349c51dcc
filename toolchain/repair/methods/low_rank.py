"""LoRA (arXiv 2106.09685), and what it shares with the methods that mask its product.

Shapes: O out features, I in features, R rank, P bytes that hold the bits of I; `*` any leading dimensions.
"""

import math
from abc import ABC

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmc.toolchain.repair.kernels import unpack, updated, wide
from vlmc.toolchain.repair.methods.base import Adapted


class LowRank(Adapted, ABC):
    """A trained pair A (R, I), drawn as torch draws a Linear's weight, and B (O, R), which starts at zero."""

    parts = ("lora_A", "lora_B")

    def begin(self, generator: torch.Generator) -> None:
        rows, columns = self.weight.shape
        self.lora_A = nn.Parameter(self.zeros(self.rank, columns))
        self.lora_B = nn.Parameter(self.zeros(rows, self.rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5), generator=generator)


class LoRA(LowRank):
    """`y = x W^T + s (x A^T) B^T`: the update is dense, on a pruned layer too."""

    def adapted(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)

    @torch.no_grad()
    def merged(self) -> Tensor:
        return torch.addmm(self.weight.to(self.lora_A.dtype), self.lora_B, self.lora_A, alpha=self.scale)


class MaskedLowRank(LowRank, ABC):
    """`W_hat = W + s (B A) * M`."""

    def packed(self) -> Tensor:
        """Return the packed mask (O, P), without which this adapter cannot be."""
        assert self.packed_OP is not None
        return self.packed_OP

    @torch.no_grad()
    def merged(self) -> Tensor:
        mask_OI = unpack(self.packed(), self.weight.shape[1], wide(self.weight))
        return updated(self.weight, mask_OI, self.lora_A, self.lora_B, self.scale).to(self.weight.dtype)
