"""SPP (arXiv 2405.16057): every weight is multiplied by a factor, so zeros stay zeros without a mask.

Shapes: O out features, I in features, R rank, here groups of neighbouring rows; `*` any leading dimensions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmc.toolchain.repair.methods.base import Adapted


class SPP(Adapted):
    """`W_hat = W * (1 + s b a_g)`: b one factor for each row, a_g one for each column in the row's group g of R.

    A kept weight that is zero stays zero. Autograd keeps one W_hat for each layer until the backward pass.
    """

    parts = ("spp_columns", "spp_rows")

    def begin(self, generator: torch.Generator) -> None:
        rows, columns = self.weight.shape
        self.spp_columns = nn.Parameter(self.zeros(self.rank, columns))
        self.spp_rows = nn.Parameter(self.zeros(rows, 1))
        nn.init.kaiming_uniform_(self.spp_columns, a=math.sqrt(5), generator=generator)

    def adapted(self, x: Tensor) -> Tensor:
        return F.linear(x, self._hat(), self.bias)

    @torch.no_grad()
    def merged(self) -> Tensor:
        return self._hat().to(self.weight.dtype)

    def _hat(self) -> Tensor:
        rows = len(self.weight)
        group_O = torch.arange(rows, device=self.weight.device) * self.rank // rows
        return self.weight * (1 + self.scale * self.spp_rows * self.spp_columns[group_O])
