"""Qwen2.5-VL: a ViT with window attention that takes images in their own size, a merger, a Qwen2.5 language model."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.deployment import OwnProcessor, Patches
from vlmc.toolchain.deploy.patches import PatchTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Family, Tower


class Qwen25VL(Family):
    """`Qwen2_5_VLForConditionalGeneration` (arXiv 2502.13923)."""

    name = model_type = "qwen2_5_vl"
    towers = (Tower(Part.VISION, "*visual.blocks"), Tower(Part.LANGUAGE, "*language_model.layers"))
    interface = ("*visual.merger.*",)
    genai = "qwen2_5_vl"
    own_processor = OwnProcessor(name="Qwen2_5_VLProcessor", images_only=True)

    def wiring(self, model: nn.Module) -> Wiring:
        qwen: Any = model
        merge, config = qwen.config.vision_config.spatial_merge_size, qwen.config.vision_config
        layout = Patches(merge=merge, window=config.window_size // merge // config.patch_size)
        return Wiring(PatchTower(qwen), qwen.model.language_model, qwen.lm_head, layout=layout, positions="m-rope")
