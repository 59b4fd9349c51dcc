"""Several adapters on one layer: their updates are added up, each at its own scale.

Shapes: O out features, I in features; `*` any leading dimensions.
"""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmc.toolchain.repair.methods import Adapted, AdapterSpec


class Sum(Adapted):
    """`W_hat = W + sum of (W_hat_k - W)` over the adapters k of one layer; nothing is trained."""

    parts = ()
    layers: nn.ModuleList

    @classmethod
    def of(cls, linear: nn.Linear, layers: Sequence[Adapted]) -> "Sum":
        """Return the sum of adapters that sit on this Linear."""
        found = cls(linear, AdapterSpec(cls, 1, 1.0, layers[0].mask_OI), torch.Generator())
        found.layers.extend(layers)
        return found

    def begin(self, generator: torch.Generator) -> None:
        self.layers = nn.ModuleList()

    def adapted(self, x: Tensor) -> Tensor:
        base = F.linear(x, self.weight, self.bias)
        update: Tensor = reduce(torch.add, (layer(x) - base for layer in self.layers))
        return base + update

    @torch.no_grad()
    def merged(self) -> Tensor:
        updates = (layer.merged() - self.weight for layer in self.layers if isinstance(layer, Adapted))
        merged_OI: Tensor = reduce(Tensor.add_, updates)
        return merged_OI.add_(self.weight)
