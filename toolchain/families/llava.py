"""LLaVA: a CLIP vision tower, an MLP projector, a Llama-like language model."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.toolchain.deploy.vision import ProjectedTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Family, Tower


class Llava(Family):
    """`LlavaForConditionalGeneration` (arXiv 2304.08485)."""

    name = model_type = "llava"
    towers = (
        Tower(Part.VISION, "*vision_tower.*encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ("*multi_modal_projector.*",)
    documented = "{system}USER: {images}\n{prompt} ASSISTANT:"  # LLaVA 1.5's

    def wiring(self, model: nn.Module) -> Wiring:
        llava: Any = model
        return Wiring(ProjectedTower(llava), llava.model.language_model, llava.lm_head, constant=True)
