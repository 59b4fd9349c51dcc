"""LLaVA-NeXT: LLaVA that also encodes tiles of an image, as many as its shape needs."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.deployment import AnyRes
from vlmc.toolchain.deploy.vision import ArrangedTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Family, Tower


class LlavaNext(Family):
    """`LlavaNextForConditionalGeneration`, also called LLaVA 1.6."""

    name = model_type = "llava_next"
    towers = (
        Tower(Part.VISION, "*vision_tower.*encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ("*multi_modal_projector.*",)

    def wiring(self, model: nn.Module) -> Wiring:
        llava: Any = model
        config = llava.config.vision_config
        layout = AnyRes(
            tile=config.image_size,
            side=config.image_size // config.patch_size,
            canvases=tuple((height, width) for height, width in llava.config.image_grid_pinpoints),
        )
        axes = {"feature_places": ("features",)}
        return Wiring(ArrangedTower(llava), llava.model.language_model, llava.lm_head, layout=layout, axes=axes)
