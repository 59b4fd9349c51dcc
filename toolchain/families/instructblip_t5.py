"""InstructBLIP with a T5: its encoder reads image and question, its decoder writes the answer."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.toolchain.deploy.vision import InstructedTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Tower
from vlmc.toolchain.families.instructblip import AXES, DOCUMENTED
from vlmc.toolchain.families.qformer import QueryingFamily


class InstructBlipT5(QueryingFamily):
    """`InstructBlipForConditionalGeneration` with T5 (arXiv 2305.06500)."""

    name, model_type = "instructblip-t5", "instructblip"
    languages = ("t5",)
    towers = (
        Tower(Part.VISION, "*vision_model.encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.encoder.block"),
        Tower(Part.LANGUAGE, "*language_model.decoder.block", mixed=False),
    )
    encoder_decoder = True
    documented = DOCUMENTED

    def wiring(self, model: nn.Module) -> Wiring:
        blip: Any = model
        tower, language = InstructedTower(blip), blip.language_model
        return Wiring(tower, language, None, place="front", max_images=1, encoder_decoder=True, axes=AXES)
