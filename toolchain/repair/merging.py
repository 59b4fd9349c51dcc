"""Merging: the adapters become part of the weights, and the pattern holds bit for bit.

Shapes: O out features, I in features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlmc.runtime.artifact import Layer
from vlmc.runtime.errors import CheckFailed
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.repair.adapters import Adapted, Adapters

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
"""Greatest difference of a logit after merging, as a share of the greatest logit: what rounding to the type can do."""


def check_masks(model: nn.Module, masks: Mapping[str, Tensor], layers: Mapping[str, Layer]) -> None:
    """Hold every mask against its pattern, and every weight (O, I) against its mask.

    Raises:
        CheckFailed: a mask keeps too many weights, or a weight that its mask prunes is not zero; first layer and position.
    """
    for name, mask_OI in masks.items():
        pattern = layers[name].sparsity
        if not pattern.divides(mask_OI.shape[1]) or (broken := pattern.violations(~mask_OI)).any():
            where = "" if not pattern.divides(mask_OI.shape[1]) else f" in {_first(broken, 'row', 'group')}"
            raise CheckFailed(f"cannot merge {name}: its mask does not hold {pattern}{where}; prune the model again")
        strays_OI = (model.get_parameter(f"{name}.weight") != 0) & ~mask_OI
        if strays_OI.any():
            where = _first(strays_OI, "row", "column")
            raise CheckFailed(f"cannot merge {name}: the weight in {where} is pruned by its mask and not zero")


@torch.no_grad()
def merge(adapters: Adapters, dtype: torch.dtype) -> None:
    """Put every update into its weight, rounded to `dtype`, and take the adapters off.

    Raises:
        CheckFailed: a merged weight is not finite in that type.
    """
    for name, linear in adapters.originals.items():
        merged_OI = merged_weight(adapters.layers[name], dtype)
        if not merged_OI.isfinite().all():
            where = _first(~merged_OI.isfinite(), "row", "column")
            raise CheckFailed(
                f"cannot merge {name}: the weight in {where} is not finite in {dtype}; repair with a lower --lr"
            )
        linear.weight.data.copy_(merged_OI)
    adapters.detach()


def merged_weight(layer: Adapted, dtype: torch.dtype) -> Tensor:
    """Return the merged weight (O, I): computed in the layer's own type, then cast, with +0.0 for every pruned weight."""
    merged_OI = layer.merged().to(dtype)
    mask_OI = layer.mask_OI
    return merged_OI if mask_OI is None else torch.where(mask_OI, merged_OI, torch.zeros((), dtype=dtype))


@torch.no_grad()
def logits_of(model: nn.Module, encoder: Encoder, samples: Sequence[Sample]) -> list[Tensor]:
    """Return the logits (T, V) over each sample's question and answer."""
    return [model(**encoder.feed(sample), use_cache=False).logits[0] for sample in samples]


def greatest_difference(before: Sequence[Tensor], after: Sequence[Tensor], dtype: torch.dtype) -> float:
    """Return the greatest difference of a logit as a share of the greatest logit.

    Raises:
        CheckFailed: it is above what the type of the weights explains.
    """
    scale = max(float(logits.abs().max()) for logits in before)
    gaps = [(one - other).abs().max() for one, other in zip(before, after, strict=True)]
    found = float(torch.stack(gaps).max()) / scale  # unlike Python's max, torch's lets no NaN slip through
    allowed = TOLERANCE.get(dtype, TOLERANCE[torch.float32])
    if not found <= allowed:
        raise CheckFailed(
            f"the merged model's logits differ from those of base and adapter by {found:.2g} of the greatest logit, "
            f"{allowed:.2g} allowed in {dtype}"
        )
    return found


def noise_samples(count: int) -> list[Sample]:
    """Return questions about pictures of coarse noise: enough to compare two models that should be one."""
    blocks = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(block).resize((256, 256), Image.Resampling.BILINEAR) for block in blocks]
    return [Sample(f"noise-{index}", (one,), "what is shown ?", "noise", "noise") for index, one in enumerate(pictures)]


def _first(flags: Tensor, row: str, column: str) -> str:
    first = flags.nonzero()[0].tolist()
    return f"{row} {first[0]}, {column} {first[1]}"
