"""Merging, layer by layer and from file to file: adapters become part of the weights, and the pattern holds bit for bit.

Shapes: O out features, I in features.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from vlmc.runtime.artifact import Layer
from vlmc.runtime.errors import CheckFailed
from vlmc.toolchain.models.streaming.weights import StreamedModel
from vlmc.toolchain.repair.adapters.adding import Sum
from vlmc.toolchain.repair.adapters.attaching import find_linear
from vlmc.toolchain.repair.adapters.files import SavedAdapter
from vlmc.toolchain.repair.methods import Adapted


@dataclass(frozen=True)
class Merging:
    """A pruned model in its files, the masks of its `layers`, and the adapters to merge into it.

    One layer at a time is in memory: its weight, and in float32 what the merged weight is computed from.
    """

    model: StreamedModel
    layers: Mapping[str, Layer]
    masks: Mapping[str, Tensor]
    adapters: Sequence[SavedAdapter]

    @cached_property
    def names(self) -> list[str]:
        """The names of the layers that have one adapter or more."""
        return list(dict.fromkeys(name for saved in self.adapters for name in saved.ranks))

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the names of the tensors and the merged weights (O, I), each in its stored type.

        Raises:
            CheckFailed: a merged weight is not finite in that type.
            InputError: an adapter does not fit the model.
        """
        for name in self.names:
            weight = f"{name}.weight"
            merged_OI = merged_weight(self.adapted(name), self.model.dtype(weight))
            check_finite(name, merged_OI)
            yield self.model.stored(weight), merged_OI

    def adapted(self, name: str, linear: nn.Linear | None = None) -> Adapted:
        """Put a layer's adapters, added up, on this Linear; without one, on a new Linear that has only the pruned weight."""
        mask_OI = self.masks.get(name)
        linear = linear or self._bare(find_linear(self.model.module, name, mask_OI), f"{name}.weight")
        parts = []
        for saved in (one for one in self.adapters if name in one.ranks):
            spec = saved.spec(name, mask_OI)
            parts.append(spec.kind(linear, spec, torch.Generator()))
            saved.fill(name, parts[-1])
        return parts[0] if len(parts) == 1 else Sum.of(linear, parts)

    def check_masks(self) -> None:
        """Check every mask and its weight with `check_mask`."""
        for name, mask_OI in self.masks.items():
            check_mask(name, mask_OI, self.model.read(f"{name}.weight"), self.layers[name])

    def _bare(self, linear: nn.Linear, parameter: str) -> nn.Linear:
        bare = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
        bare.weight = nn.Parameter(self.model.read(parameter), requires_grad=False)
        return bare


def check_mask(name: str, mask_OI: Tensor, weight_OI: Tensor, layer: Layer) -> None:
    """Check that a layer's mask holds its pattern, and that the weight is zero where the mask prunes.

    Raises:
        CheckFailed: one of them does not hold; the message has the first position.
    """
    pattern = layer.sparsity
    if not pattern.divides(mask_OI.shape[1]) or (broken := pattern.violations(~mask_OI)).any():
        where = "" if not pattern.divides(mask_OI.shape[1]) else f" in {_first(broken, 'row', 'group')}"
        raise CheckFailed(f"cannot merge {name}: its mask does not hold {pattern}{where}; prune the model again")
    strays_OI = (weight_OI != 0) & ~mask_OI
    if strays_OI.any():
        where = _first(strays_OI, "row", "column")
        raise CheckFailed(f"cannot merge {name}: the weight in {where} is pruned by its mask but not zero")


def merged_weight(layer: Adapted, dtype: torch.dtype) -> Tensor:
    """Return a layer's merged weight (O, I), computed in float32 and rounded to `dtype`; every pruned weight is +0.0."""
    merged_OI, mask_OI = layer.merged().to(dtype), layer.mask_OI
    return merged_OI if mask_OI is None else torch.where(mask_OI, merged_OI, torch.zeros((), dtype=dtype))


def check_finite(name: str, merged_OI: Tensor) -> None:
    """Raise CheckFailed where a merged weight is not finite in its type; the message has the first position."""
    if not (finite_OI := merged_OI.isfinite()).all():
        where, dtype = _first(~finite_OI, "row", "column"), merged_OI.dtype
        raise CheckFailed(f"cannot merge {name}: the weight in {where} is not finite in {dtype}; repair with a lower --lr")


def _first(flags: Tensor, row: str, column: str) -> str:
    first = flags.nonzero()[0].tolist()
    return f"{row} {first[0]}, {column} {first[1]}"
