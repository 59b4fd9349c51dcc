"""Qwen3-VL: a ViT whose middle layers also feed the language model's first layers (deepstack), a Qwen3 language model."""

from pathlib import Path

from vlmc.runtime.artifact import Part
from vlmc.toolchain.families import processors
from vlmc.toolchain.families.base import Family, Processor, Tower


class Qwen3VL(Family):
    """`Qwen3VLForConditionalGeneration` (arXiv 2511.21631)."""

    name = model_type = "qwen3_vl"
    towers = (Tower(Part.VISION, "*visual.blocks"), Tower(Part.LANGUAGE, "*language_model.layers"))
    interface = ("*visual.merger.*", "*visual.deepstack_merger_list.*")

    def load_processor(self, folder: Path) -> Processor:
        from transformers import Qwen3VLProcessor

        return processors.load(folder, processors.for_pictures(Qwen3VLProcessor))
