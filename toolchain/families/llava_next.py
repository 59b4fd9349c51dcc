"""LLaVA-NeXT: LLaVA that also looks at an image's tiles, as many as its shape asks for."""

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
