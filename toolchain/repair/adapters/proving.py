"""The proof of a merge: the files hold W + dW to the bit, and the model that they make answers as base and adapters do.

1. `check_saved`: every merged layer's bits in the files are those of W + dW, made anew from the pruned weight and the
   adapter's file, masked and rounded to the stored type; and dW is what the adapter did to the layer's outputs in training.
2. `prove_logits`: the merged model's logits are near those of base + adapters, by the measure of what the adapters do to
   them. Where rounding to the stored type drowns the adapters, the merged model must be base + adapters rounded so.

Shapes: O out features, I in features, N answer tokens, V words of the vocabulary; `*` any leading dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.tensors import TensorFile, open_weights
from vlmc.toolchain.families.base import Family
from vlmc.toolchain.models.streaming.reading import FLOATS
from vlmc.toolchain.models.streaming.weights import StreamedModel
from vlmc.toolchain.repair.adapters.attaching import Adapted
from vlmc.toolchain.repair.adapters.merging import Merging
from vlmc.toolchain.repair.feeding.batches import Batch, answer_logits

NEAR = 0.25
"""Distance of the merged model from base + adapters, as a share of the distance of base alone, that needs no reason."""
EXACT = 1e-4
"""Distance of two models with equal weights, as a share of the logits: what float32 explains."""
LAYER_EXACT, PROBES = 64 * torch.finfo(torch.float32).eps, 8
"""Distance of two ways to compute one layer's outputs for so many random inputs, as a share of them: float32 explains it."""

Way = Literal["base", "adapted", "rounded"]


def check_saved(merging: Merging, folder: Path) -> None:
    """Hold the merged weights in a folder against the adapters, bit for bit, one layer at a time.

    Raises:
        CheckFailed: a weight is another than base and adapters make; the message names the layer and the first position.
    """
    files = open_weights(folder)
    for name in merging.names:
        layer, stored = merging.adapted(name), merging.model.stored(f"{name}.weight")
        merged_OI = layer.merged()
        check_update(name, layer, merged_OI)
        _check_bits(name, _rounded(layer, merged_OI, merging.model.dtype(f"{name}.weight")), files[stored], stored)


@torch.no_grad()
def check_update(name: str, layer: Adapted, merged_OI: Tensor) -> None:
    """Hold a merged weight, not yet rounded, against what its adapter gives for random inputs.

    Raises:
        CheckFailed: they differ by more than float32's rounding.
    """
    x_PI = torch.randn(PROBES, layer.weight.shape[1], generator=torch.Generator().manual_seed(0))
    base_PO, trained_PO = F.linear(x_PI, layer.weight, layer.bias), layer(x_PI)
    gap, effect = float((F.linear(x_PI, merged_OI, layer.bias) - trained_PO).norm()), float((trained_PO - base_PO).norm())
    if not gap <= LAYER_EXACT * (effect + float(base_PO.norm())):
        raise CheckFailed(
            f"the merged weight of {name} is not what was trained: its outputs differ by {gap:.2g}, "
            f"where the adapter changes them by {effect:.2g}"
        )


def _rounded(layer: Adapted, merged_OI: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what must be stored: the merged weight in the stored type, every bit clear where the mask prunes."""
    rounded_OI, mask_OI = merged_OI.to(dtype), layer.mask_OI
    return rounded_OI if mask_OI is None else rounded_OI.masked_fill(~mask_OI, 0.0)


def _check_bits(name: str, expected_OI: Tensor, file: TensorFile, stored: str) -> None:
    kind, saved_OI = file.dtype(stored), file[stored]
    if FLOATS.get(kind) != expected_OI.dtype:
        raise CheckFailed(f"the merged weight of {name} is stored as {kind}, not as {expected_OI.dtype}")
    bits_OI = expected_OI.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[expected_OI.itemsize]).numpy()
    wrong = np.argwhere(bits_OI.view(saved_OI.dtype) != saved_OI)
    if len(wrong):
        row, column = wrong[0]
        raise CheckFailed(
            f"the merged weight of {name} is not base + adapter in {file.path.name}: row {row}, column {column} is the "
            f"first of {len(wrong)} that differ"
        )


@dataclass(frozen=True)
class Proof:
    """Greatest differences of a logit from base + adapters, as shares of the greatest: the merged model's, and base's."""

    difference: float
    effect: float

    def measures(self) -> dict[str, float]:
        """Return both for the history, in three digits."""
        return {"logit_difference": float(f"{self.difference:.3g}"), "logit_effect": float(f"{self.effect:.3g}")}


@torch.no_grad()
def prove_logits(merging: Merging, merged: StreamedModel, family: Family, batches: Sequence[Batch]) -> Proof:
    """Compare the merged model's logits of the answers' tokens with those of base + adapters; block by block.

    Raises:
        CheckFailed: they differ by more than a quarter of what the adapters do and by more than rounding explains.
    """
    source = _Ways(merging)
    blocks = [name for tower in family.towers for name, _ in family.blocks(merged.module, tower)]
    found = []
    with merging.model.by_block(blocks), merged.by_block(blocks):
        for batch in batches:
            base, adapted = source.logits("base", batch), source.logits("adapted", batch)
            merged_NV = answer_logits(merged.module, batch)
            found.append(compare(base, adapted, merged_NV, partial(source.logits, "rounded", batch)))
    scale = max(one[0] for one in found)
    return Proof(max(one[1] for one in found) / scale, max(one[2] for one in found) / scale)


def compare(
    base_NV: Tensor, adapted_NV: Tensor, merged_NV: Tensor, rounded: Callable[[], Tensor]
) -> tuple[float, float, float]:
    """Return the greatest logit, and the greatest differences of merged and base from base + adapters.

    `rounded` gives the logits of base + adapters with every adapted weight rounded as it is stored. It is asked only where
    the merged model is not plainly nearer to base + adapters than base is.

    Raises:
        CheckFailed: the merged model is neither near to base + adapters nor what rounding makes of them.
    """
    scale = float(adapted_NV.abs().max())
    apart, effect = merged_NV - adapted_NV, base_NV - adapted_NV
    gap, moved = float(apart.abs().max()), float(effect.abs().max())
    if not float(apart.norm()) <= NEAR * float(effect.norm()):
        rounded_NV = rounded()
        if not float((merged_NV - rounded_NV).norm()) <= EXACT * float(rounded_NV.norm()):
            raise CheckFailed(
                f"the merged model's logits differ from those of base and adapter by {gap / scale:.2g} of the greatest "
                f"logit, where the adapter changes them by {moved / scale:.2g}, and rounding does not explain it"
            )
    return scale, gap, moved


class _Ways:
    """The pruned model with its adapters at hand: it runs without them, with them, or with rounded merged weights."""

    def __init__(self, merging: Merging) -> None:
        self.merging, self.way = merging, "base"
        for name in merging.names:
            linear = merging.model.module.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            merging.model.put(name, _Place(linear, partial(self._run, name)))

    def logits(self, way: Way, batch: Batch) -> Tensor:
        """Return the logits (N, V) of a batch's answers."""
        self.way = way
        return answer_logits(self.merging.model.module, batch)

    def _run(self, name: str, linear: nn.Linear, x: Tensor) -> Tensor:
        if self.way == "base":
            return F.linear(x, linear.weight, linear.bias)
        layer = self.merging.adapted(name, linear)
        if self.way == "adapted":
            return layer(x)  # type: ignore[no-any-return]
        rounded_OI = _rounded(layer, layer.merged(), self.merging.model.dtype(f"{name}.weight"))
        return F.linear(x, rounded_OI.to(layer.weight.dtype), linear.bias)


class _Place(nn.Linear):
    """Stands where a Linear stood, with its parameters; what it does is asked of `run` each time."""

    def __init__(self, linear: nn.Linear, run: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias, self._run = linear.weight, linear.bias, run

    def forward(self, x: Tensor) -> Tensor:
        """Map (*, I) to (*, O)."""
        return self._run(self, x)
