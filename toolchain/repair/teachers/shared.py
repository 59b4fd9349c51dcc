"""The student as its own teacher: every adapter off, and what was pruned away put back for the moment.

Only where pruning changed no kept weight, that is by magnitude or Wanda without refit: dense = pruned + pruned away. The
values cost half of the pruned layers at 50 %, where a second copy costs the whole model.
Shapes: O out features, I in features.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlmc.runtime.artifact import Layer
from vlmc.runtime.tensors import TensorFile, open_weights
from vlmc.toolchain.repair.adapters import Adapters
from vlmc.toolchain.repair.batches import Batch
from vlmc.toolchain.repair.targets import Whole
from vlmc.toolchain.repair.teachers.base import Teacher
from vlmc.toolchain.repair.views import View

_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Shared(Teacher):
    """`pruned` maps every pruned layer to the values that its mask takes away, as `pruned_away` returns them."""

    mode = "shared"

    def __init__(self, adapters: Adapters, pruned: Mapping[str, Tensor], view: View) -> None:
        self.adapters, self.view = adapters, view
        weights = {name: adapters.layers[name].weight for name in pruned}
        self.pruned = {name: values.to(weights[name].device, weights[name].dtype) for name, values in pruned.items()}

    @torch.no_grad()
    def target(self, batch: Batch, indices: Sequence[int]) -> Whole:
        with self.adapters.off(), self._dense():
            seen = self.view.of(self.adapters.model, batch)
        return Whole(seen.logits_NV, seen.hidden_ND)

    @contextmanager
    def _dense(self) -> Iterator[None]:
        """Put the pruned values in, and zeros again in the end."""
        away = {name: ~self._mask(name) for name in self.pruned}
        try:
            for name, values in self.pruned.items():
                self.adapters.layers[name].weight.data.masked_scatter_(away[name], values)
            yield
        finally:
            for name, away_OI in away.items():
                self.adapters.layers[name].weight.data.masked_fill_(away_OI, 0.0)

    def _mask(self, name: str) -> Tensor:
        mask_OI = self.adapters.layers[name].mask_OI
        assert mask_OI is not None
        return mask_OI


def pruned_away(
    pruned: Path, dense: Path, layers: Mapping[str, Layer], masks: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Return every layer's values that its mask (O, I) takes away, row by row; None where that is not all that differs.

    Both folders' weights are compared bit by bit, and one tensor of each is in memory at a time.
    """
    ours, theirs = open_weights(pruned), open_weights(dense)
    of_layer = {layer.tensor: name for name, layer in layers.items()}
    if ours.keys() != theirs.keys():
        return None
    found = {}
    for tensor in ours:
        one, other = ours[tensor][tensor], theirs[tensor][tensor]
        if tensor in of_layer:
            mask_OI = masks[of_layer[tensor]].numpy()
            found[of_layer[tensor]] = _values(theirs[tensor], tensor)[torch.from_numpy(~mask_OI)]
            other = np.where(mask_OI, other, np.zeros_like(other))
        if ours[tensor].dtype(tensor) != theirs[tensor].dtype(tensor) or not np.array_equal(one, other):
            return None
    return found


def _values(file: TensorFile, name: str) -> Tensor:
    return torch.from_numpy(file[name].copy()).view(_TYPES[file.dtype(name)])
