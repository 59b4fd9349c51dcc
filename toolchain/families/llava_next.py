"""LLaVA-NeXT: LLaVA that also encodes tiles of an image, as many as its shape needs."""

from vlmc.runtime.artifact import Part
from vlmc.toolchain.families.base import Family, Tower


class LlavaNext(Family):
    """`LlavaNextForConditionalGeneration`, also called LLaVA 1.6."""

    name = model_type = "llava_next"
    towers = (
        Tower(Part.VISION, "*vision_tower.*encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ("*multi_modal_projector.*",)
