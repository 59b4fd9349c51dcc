"""The proof of a merge: the files hold W + dW bit for bit, and the merged model answers as base + adapters do.

1. `check_saved`: every merged layer's bits in the files are those of W + dW, recomputed from the pruned weight and the
   adapter's file, masked and rounded to the stored type; and dW changes the layer's outputs as the trained adapter does.
2. `prove_logits`: the merged model's logits are near those of base + adapters, compared with what the adapters change in
   them. Where rounding to the stored type changes more, the merged model must be base + adapters with rounded weights.

Shapes: O out features, I in features, N answer tokens, V tokens of the vocabulary; `*` any leading dimensions.
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
from vlmc.toolchain.repair.adapters.adding import Sum
from vlmc.toolchain.repair.adapters.merging import Merging
from vlmc.toolchain.repair.feeding import Batch, answer_logits
from vlmc.toolchain.repair.methods import Adapted

NEAR = 0.25
"""The merged model may be this far from base + adapters, as a share of the distance of base alone."""
EXACT = 1e-4
"""Two models with equal weights may be this far apart, as a share of the logits: float32's rounding."""
LAYER_EXACT, PROBES = 64 * torch.finfo(torch.float32).eps, 8
"""Two ways to compute a layer's outputs for PROBES random inputs may differ by this share of them for each adapter."""

Way = Literal["base", "adapted", "rounded"]


def check_saved(merging: Merging, folder: Path) -> None:
    """Check that a folder holds the merged weights bit for bit, one layer at a time.

    Raises:
        CheckFailed: a weight differs from base + adapters; the message names the layer and the first position.
    """
    files = open_weights(folder)
    for name in merging.names:
        layer, stored = merging.adapted(name), merging.model.stored(f"{name}.weight")
        merged_OI = layer.merged()
        check_update(name, layer, merged_OI)
        _check_bits(name, _rounded(layer, merged_OI, merging.model.dtype(f"{name}.weight")), files[stored], stored)


@torch.no_grad()
def check_update(name: str, layer: Adapted, merged_OI: Tensor) -> None:
    """Check a merged weight, not yet rounded, against the outputs of its adapter for random inputs.

    Raises:
        CheckFailed: they differ by more than float32's rounding.
    """
    x_PI = torch.randn(PROBES, layer.weight.shape[1], generator=torch.Generator().manual_seed(0))
    base_PO, trained_PO = F.linear(x_PI, layer.weight, layer.bias), layer(x_PI)
    gap, effect = float((F.linear(x_PI, merged_OI, layer.bias) - trained_PO).norm()), float((trained_PO - base_PO).norm())
    count = len(layer.layers) if isinstance(layer, Sum) else 1  # the update of each is a difference of rounded outputs
    if not gap <= LAYER_EXACT * count * (effect + float(base_PO.norm())):
        raise CheckFailed(
            f"the merged weight of {name} is not what was trained: its outputs differ by {gap:.2g}, "
            f"where the adapter changes them by {effect:.2g}"
        )


def _rounded(layer: Adapted, merged_OI: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what must be stored: the merged weight in the stored type, +0.0 where the mask prunes."""
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
    """Greatest differences of a logit from base + adapters, as shares of the greatest: of the merged model, and of base."""

    difference: float
    effect: float

    def measures(self) -> dict[str, float]:
        """Return both for the history, to three digits."""
        return {"logit_difference": float(f"{self.difference:.3g}"), "logit_effect": float(f"{self.effect:.3g}")}


@torch.no_grad()
def prove_logits(merging: Merging, merged: StreamedModel, family: Family, batches: Sequence[Batch]) -> Proof:
    """Compare the merged model's logits of the answers' tokens with those of base + adapters, block by block.

    Raises:
        CheckFailed: they differ by more than a quarter of what the adapters change, and by more than rounding explains.
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

    `rounded` returns the logits of base + adapters with every adapted weight rounded to its stored type. It is called only
    where the merged model is not clearly nearer to base + adapters than base is.

    Raises:
        CheckFailed: the merged model is neither near base + adapters nor equal to them with rounded weights.
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
    """The pruned model, run without its adapters, with them, or with merged weights that are rounded."""

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
    """Takes the place of a Linear, with its parameters; `run` computes its outputs."""

    def __init__(self, linear: nn.Linear, run: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias, self._run = linear.weight, linear.bias, run

    def forward(self, x: Tensor) -> Tensor:
        """Map (*, I) to (*, O)."""
        return self._run(self, x)
