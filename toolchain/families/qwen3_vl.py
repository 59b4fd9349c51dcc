"""Qwen3-VL: a ViT whose middle layers also feed the language model's first layers (deepstack), a Qwen3 language model."""

from vlmc.runtime.artifact import Part
from vlmc.runtime.deployment import OwnProcessor
from vlmc.toolchain.families.base import Family, Tower


class Qwen3VL(Family):
    """`Qwen3VLForConditionalGeneration` (arXiv 2511.21631)."""

    name = model_type = "qwen3_vl"
    towers = (Tower(Part.VISION, "*visual.blocks"), Tower(Part.LANGUAGE, "*language_model.layers"))
    interface = ("*visual.merger.*", "*visual.deepstack_merger_list.*")
    own_processor = OwnProcessor(name="Qwen3VLProcessor", images_only=True)
