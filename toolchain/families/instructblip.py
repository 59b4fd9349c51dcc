"""InstructBLIP: a ViT, a Q-Former that also reads the question, a Vicuna language model."""

from vlmc.runtime.artifact import Part
from vlmc.toolchain.families.base import Tower
from vlmc.toolchain.families.qformer import QueryingFamily

DOCUMENTED = "{prompt}"
"""InstructBLIP is asked with the question alone, as in its model cards."""


class InstructBlip(QueryingFamily):
    """`InstructBlipForConditionalGeneration` with Vicuna (arXiv 2305.06500)."""

    name = model_type = "instructblip"
    languages = ("llama",)
    towers = (
        Tower(Part.VISION, "*vision_model.encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    documented = DOCUMENTED
