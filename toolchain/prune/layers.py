"""One layer on its way: from the dense weight to the pruned one, in the type that it is stored in, with its keep-mask.

Shapes: O out features, I in features.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration import Statistics
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.models.masks import masked
from vlmc.toolchain.prune.journal import PrunedLayer
from vlmc.toolchain.prune.methods import Pruner


@dataclass
class LayerJob:
    """One layer to prune: its name, its weight's name in the model's files, and the type that the weight is stored in."""

    name: str
    tensor: str
    layer: nn.Linear
    dense: Callable[[], Tensor]  # gives the weight (O, I) as it is stored, in float32
    statistics: Statistics
    pattern: SparsityPattern
    dtype: torch.dtype
    raised_damping: float | None = None

    def prune(self, pruner: Pruner) -> None:
        """Fill in `weight_OI` and `mask_OI`."""
        weight_OI, self.mask_OI, self.raised_damping = pruner.prune(self.dense(), self.statistics, self.pattern)
        self.take(weight_OI)

    def take(self, weight_OI: Tensor) -> None:
        """Round a weight (O, I) to the stored type; it becomes +0.0 where it is pruned.

        Raises:
            CheckFailed: a weight is too large for that type.
        """
        self.weight_OI = masked(weight_OI.to(self.dtype), self.mask_OI)
        if not all(math.isfinite(bound) for bound in self.weight_OI.aminmax()):
            raise CheckFailed(f"{self.name}: a pruned weight is too large for {self.dtype}: use another --method")

    def send(self, group: ProcessGroup, owner: int) -> None:
        """Send the owner's result to all processes."""
        if group.rank != owner:
            self.weight_OI = torch.empty_like(self.layer.weight, dtype=self.dtype)
            self.mask_OI = torch.empty_like(self.layer.weight, dtype=torch.bool)
        raised = torch.tensor(self.raised_damping or 0.0, device=self.weight_OI.device, dtype=torch.float64)
        for tensor in (self.weight_OI.view(torch.uint8), self.mask_OI.view(torch.uint8), raised):
            group.send(tensor, owner)
        self.raised_damping = float(raised) or None

    def note(self) -> PrunedLayer:
        """Return what the journal keeps of it beside the tensors."""
        kept, size = int(self.mask_OI.sum()), self.mask_OI.numel()
        return PrunedLayer(self.name, self.tensor, str(self.pattern), kept, size, self.raised_damping)
