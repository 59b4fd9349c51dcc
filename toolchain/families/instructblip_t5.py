"""InstructBLIP with a T5: its encoder reads image and question, its decoder writes the answer."""

from vlmc.runtime.artifact import Part
from vlmc.toolchain.families.base import Tower
from vlmc.toolchain.families.instructblip import DOCUMENTED
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
