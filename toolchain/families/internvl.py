"""InternVL: a ViT over an image's tiles and a thumbnail, a pixel shuffle with an MLP, a Qwen or Llama language model."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.deployment import OwnProcessor
from vlmc.toolchain.deploy.vision import ShuffledTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Family, Tower


class InternVL(Family):
    """`InternVLForConditionalGeneration`, InternVL 2.5 and 3 in the `-hf` form (arXiv 2504.10479)."""

    name = model_type = "internvl"
    towers = (
        Tower(Part.VISION, "*vision_tower.encoder.layer"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ("*multi_modal_projector.*",)
    own_processor = OwnProcessor(name="InternVLProcessor", images_only=True)

    def wiring(self, model: nn.Module) -> Wiring:
        internvl: Any = model
        return Wiring(ShuffledTower(internvl), internvl.model.language_model, internvl.lm_head)
