"""Gemma 3: a SigLIP vision tower, a pooled projection, a Gemma 3 language model with sliding and full attention."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.deployment import OwnProcessor
from vlmc.toolchain.deploy.vision import ConnectedTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Family, Processor, Tower


class Gemma3(Family):
    """`Gemma3ForConditionalGeneration` (arXiv 2503.19786); repair cannot adapt its projection, a plain parameter."""

    name = model_type = "gemma3"
    towers = (
        Tower(Part.VISION, "*vision_tower.*encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ()
    genai = "gemma3"
    own_processor = OwnProcessor(nested=True)

    def image_token(self, processor: Processor) -> str:
        return str(processor.boi_token)  # the processor puts an image's tokens after it

    def wiring(self, model: nn.Module) -> Wiring:
        gemma: Any = model
        tower = ConnectedTower(gemma.model.vision_tower, gemma.model.multi_modal_projector)
        return Wiring(tower, gemma.model.language_model, gemma.lm_head, prefix_mask="images")
