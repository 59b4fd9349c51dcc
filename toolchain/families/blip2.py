"""BLIP-2: a ViT, a Q-Former with learned queries, an OPT language model."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.toolchain.deploy.vision import QueryingTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Tower
from vlmc.toolchain.families.qformer import QueryingFamily

DOCUMENTED = "Question: {prompt} Answer:"
"""BLIP-2's prompt for questions, as its model cards give it; its models have no chat template."""


class Blip2(QueryingFamily):
    """`Blip2ForConditionalGeneration` with OPT (arXiv 2301.12597)."""

    name = model_type = "blip-2"
    languages = ("opt",)
    towers = (
        Tower(Part.VISION, "*vision_model.encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*decoder.layers"),
    )
    documented = DOCUMENTED

    def wiring(self, model: nn.Module) -> Wiring:
        blip2: Any = model
        return Wiring(QueryingTower(blip2), blip2.language_model, None, constant=True, place="front", max_images=1)
