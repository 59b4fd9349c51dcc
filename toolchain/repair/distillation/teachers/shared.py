"""The student as its own teacher: every adapter off, and the pruned values put back during the teacher's pass.

This needs a pruning that changed no kept weight (magnitude, or Wanda without refit): dense = pruned + pruned away. At 50 %
the values take half the memory of the pruned layers, where a second copy takes that of the whole model; with weights in
shards each process has the values of its own rows. Masks are unpacked for one layer at a time.
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
from vlmc.toolchain.repair.adapters import Adapters
from vlmc.toolchain.repair.distillation.targets import FullTarget
from vlmc.toolchain.repair.distillation.teachers.base import Teacher
from vlmc.toolchain.repair.distillation.views import View
from vlmc.toolchain.repair.feeding import Batch
from vlmc.toolchain.repair.kernels import unpack
from vlmc.toolchain.repair.loading import own_part, own_rows

_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Shared(Teacher):
    """`pruned` has the values that the mask of every pruned layer takes away, as `pruned_away` returns them."""

    mode = "shared"

    def __init__(self, adapters: Adapters, pruned: Mapping[str, Tensor], view: View) -> None:
        self.adapters, self.view = adapters, view
        weights = {name: adapters.layers[name].weight for name in pruned}
        self.pruned = {name: values.to(weights[name].device, weights[name].dtype) for name, values in pruned.items()}

    @torch.no_grad()
    def target(self, batch: Batch, indices: Sequence[int]) -> FullTarget:
        with self.adapters.off(), self._dense():
            seen = self.view.of(self.adapters.model, batch)
        return FullTarget(seen.logits_NV, seen.hidden_ND)

    @contextmanager
    def _dense(self) -> Iterator[None]:
        """Put the pruned values in, and zeros back at the end."""
        try:
            for name, values in self.pruned.items():
                own_part(self.adapters.layers[name].weight).masked_scatter_(self._away(name), values)
            yield
        finally:
            for name in self.pruned:
                own_part(self.adapters.layers[name].weight).masked_fill_(self._away(name), 0.0)

    def _away(self, name: str) -> Tensor:
        """Return the mask of a layer's pruned weights, for the rows that this process has."""
        layer = self.adapters.layers[name]
        assert layer.packed_OP is not None
        return ~unpack(layer.packed_OP[own_rows(layer.weight)], layer.weight.shape[1], torch.bool)


def pruned_away(
    pruned: Path, dense: Path, layers: Mapping[str, Layer], masks: Mapping[str, Tensor], adapters: Adapters | None = None
) -> dict[str, Tensor] | None:
    """Return the values that each layer's mask, packed (O, P), takes away, row by row; None where other weights differ too.

    Both folders' weights are compared bit by bit, and one tensor of each is in memory at a time. Where the weights of the
    adapters' layers lie in shards, the values are those of this process's rows.
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
