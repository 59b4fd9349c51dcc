"""BLIP-2 with a T5: its encoder reads image and question, its decoder writes the answer."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.toolchain.deploy.vision import QueryingTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Tower
from vlmc.toolchain.families.blip2 import DOCUMENTED
from vlmc.toolchain.families.qformer import QueryingFamily


class Blip2T5(QueryingFamily):
    """`Blip2ForConditionalGeneration` with T5 (arXiv 2301.12597)."""

    name, model_type = "blip-2-t5", "blip-2"
    languages = ("t5",)
    towers = (
        Tower(Part.VISION, "*vision_model.encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.encoder.block"),
        Tower(Part.LANGUAGE, "*language_model.decoder.block", mixed=False),
    )
    encoder_decoder = True
    documented = DOCUMENTED

    def wiring(self, model: nn.Module) -> Wiring:
        blip2: Any = model
        tower, language = QueryingTower(blip2), blip2.language_model
        return Wiring(tower, language, None, constant=True, place="front", max_images=1, encoder_decoder=True)
