"""SmolVLM2: Idefics3's build, grown to videos."""

from pathlib import Path

from vlmc.runtime.artifact import Part
from vlmc.toolchain.families import processors
from vlmc.toolchain.families.base import Family, Processor, Tower


class SmolVLM(Family):
    """`SmolVLMForConditionalGeneration` (arXiv 2504.05299)."""

    name = model_type = "smolvlm"
    towers = (Tower(Part.VISION, "*vision_model.encoder.layers"), Tower(Part.LANGUAGE, "*text_model.layers"))
    interface = ("*connector.*",)

    def load_processor(self, folder: Path) -> Processor:
        from transformers import Idefics3Processor

        # SmolVLM's own wants torchvision and num2words for its videos; with pictures the two do the same.
        return processors.load(folder, Idefics3Processor)
