"""Idefics3, and the first SmolVLM: a SigLIP vision tower over an image's tiles, a pixel shuffle, a Llama language model."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.deployment import Tiles
from vlmc.toolchain.deploy.vision import ConnectedTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Family, Tower


class Idefics3(Family):
    """`Idefics3ForConditionalGeneration` (arXiv 2408.12637)."""

    name = model_type = "idefics3"
    towers = (Tower(Part.VISION, "*vision_model.encoder.layers"), Tower(Part.LANGUAGE, "*text_model.layers"))
    interface = ("*connector.*",)

    def wiring(self, model: nn.Module) -> Wiring:
        idefics: Any = model
        vision = ConnectedTower(idefics.model.vision_model, idefics.model.connector)
        return Wiring(vision, idefics.model.text_model, idefics.lm_head, layout=Tiles(padded=True))
