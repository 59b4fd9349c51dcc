"""InternVL as transformers has it: InternViT over a picture's tiles, a pixel shuffle, a Qwen or Llama language model."""

from pathlib import Path

from vlmc.runtime.artifact import Part
from vlmc.toolchain.families import processors
from vlmc.toolchain.families.base import Family, Processor, Tower


class InternVL(Family):
    """`InternVLForConditionalGeneration`, InternVL 2.5 and 3 in the `-hf` form (arXiv 2504.10479)."""

    name = model_type = "internvl"
    towers = (
        Tower(Part.VISION, "*vision_tower.encoder.layer"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ("*multi_modal_projector.*",)

    def load_processor(self, folder: Path) -> Processor:
        from transformers import InternVLProcessor

        return processors.load(folder, processors.for_pictures(InternVLProcessor))
