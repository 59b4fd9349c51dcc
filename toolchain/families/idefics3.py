"""Idefics3, and the first SmolVLM: a SigLIP vision tower over a picture's tiles, a pixel shuffle, a Llama language model."""

from vlmc.runtime.artifact import Part
from vlmc.toolchain.families.base import Family, Tower


class Idefics3(Family):
    """`Idefics3ForConditionalGeneration` (arXiv 2408.12637)."""

    name = model_type = "idefics3"
    towers = (Tower(Part.VISION, "*vision_model.encoder.layers"), Tower(Part.LANGUAGE, "*text_model.layers"))
    interface = ("*connector.*",)
