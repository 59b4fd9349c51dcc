"""The student as its own teacher: every adapter off, and what was pruned away put back for the moment.

Only where pruning changed no kept weight, that is by magnitude or Wanda without refit: dense = pruned + pruned away. The
values cost half of the pruned layers at 50 %, where a second copy costs the whole model; of weights in shards each process
has those of its own rows. Masks stay packed: a byte per weight is there for one layer at a time, while it changes.
Shapes: O out features, I in features, P bytes that hold the bits of I.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmc.runtime.artifact import Layer
from vlmc.runtime.tensors import TensorFile, open_weights
from vlmc.toolchain.repair.adapters.attaching import Adapters
from vlmc.toolchain.repair.distillation.targets import Whole
from vlmc.toolchain.repair.distillation.teachers.base import Teacher
from vlmc.toolchain.repair.distillation.views import View
from vlmc.toolchain.repair.feeding.batches import Batch
from vlmc.toolchain.repair.kernels.masked_linear import unpack
from vlmc.toolchain.repair.training.loading import own_part, own_rows

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
        try:
            for name, values in self.pruned.items():
                own_part(self.adapters.layers[name].weight).masked_scatter_(self._away(name), values)
            yield
        finally:
            for name in self.pruned:
                own_part(self.adapters.layers[name].weight).masked_fill_(self._away(name), 0.0)

    def _away(self, name: str) -> Tensor:
        """Return which weights of a layer are pruned, in the rows that this process has."""
        layer = self.adapters.layers[name]
        assert layer.packed_OP is not None
        return ~unpack(layer.packed_OP[own_rows(layer.weight)], layer.weight.shape[1], torch.bool)


def pruned_away(
    pruned: Path, dense: Path, layers: Mapping[str, Layer], masks: Mapping[str, Tensor], adapters: Adapters | None = None
) -> dict[str, Tensor] | None:
    """Return every layer's values that its mask, packed (O, P), takes away, row by row; None where more than that differs.

    Both folders' weights are compared bit by bit, and one tensor of each is in memory at a time. Of the adapters' layers
    whose weights lie in shards, the values are those of this process's rows.
    """
    ours, theirs = open_weights(pruned), open_weights(dense)
    of_layer = {layer.tensor: name for name, layer in layers.items()}
    if ours.keys() != theirs.keys():
        return None
    found = {}
    for tensor in ours:
        one, other = ours[tensor][tensor], theirs[tensor][tensor]
        if tensor in of_layer:
            name = of_layer[tensor]
            mask_OI = _unpacked(masks[name], one.shape[1])
            rows = own_rows(adapters.layers[name].weight) if adapters else slice(None)
            found[name] = _values(theirs[tensor], tensor, rows)[torch.from_numpy(~mask_OI[rows])]
            other = np.where(mask_OI, other, np.zeros_like(other))
        if ours[tensor].dtype(tensor) != theirs[tensor].dtype(tensor) or not np.array_equal(one, other):
            return None
    return found


def _unpacked(packed_OP: Tensor, columns: int) -> NDArray[np.bool_]:
    return np.unpackbits(packed_OP.numpy(), axis=1, count=columns).astype(bool)


def _values(file: TensorFile, name: str, rows: slice) -> Tensor:
    return torch.from_numpy(file[name][rows].copy()).view(_TYPES[file.dtype(name)])
