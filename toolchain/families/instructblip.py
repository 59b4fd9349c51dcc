"""InstructBLIP: a ViT, a Q-Former that also reads the question, a Vicuna language model."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.toolchain.deploy.vision import InstructedTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Tower
from vlmc.toolchain.families.qformer import QueryingFamily

DOCUMENTED = "{prompt}"
"""InstructBLIP is asked with the question alone, as in its model cards."""

AXES = dict.fromkeys(("qformer_input_ids", "qformer_attention_mask"), ("images", "question"))
"""The dimensions of the Q-Former's own tokens."""


class InstructBlip(QueryingFamily):
    """`InstructBlipForConditionalGeneration` with Vicuna (arXiv 2305.06500)."""

    name = model_type = "instructblip"
    languages = ("llama",)
    towers = (
        Tower(Part.VISION, "*vision_model.encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    documented = DOCUMENTED

    def wiring(self, model: nn.Module) -> Wiring:
        blip: Any = model
        return Wiring(InstructedTower(blip), blip.language_model, None, place="front", max_images=1, axes=AXES)
