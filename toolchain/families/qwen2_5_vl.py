"""Qwen2.5-VL: a ViT with window attention that takes pictures in their own size, a merger, a Qwen2.5 language model."""

from pathlib import Path

from vlmc.runtime.artifact import Part
from vlmc.toolchain.families import processors
from vlmc.toolchain.families.base import Family, Processor, Tower


class Qwen25VL(Family):
    """`Qwen2_5_VLForConditionalGeneration` (arXiv 2502.13923)."""

    name = model_type = "qwen2_5_vl"
    towers = (Tower(Part.VISION, "*visual.blocks"), Tower(Part.LANGUAGE, "*language_model.layers"))
    interface = ("*visual.merger.*",)

    def load_processor(self, folder: Path) -> Processor:
        from transformers import Qwen2_5_VLProcessor

        return processors.load(folder, processors.for_pictures(Qwen2_5_VLProcessor))
