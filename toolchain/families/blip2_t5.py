"""BLIP-2 with a T5: its encoder reads image and question, its decoder writes the answer."""

from vlmc.runtime.artifact import Part
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
