"""BLIP-2: a ViT, a Q-Former with learned queries, an OPT language model."""

from torch import nn

from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.artifact import Part, Serving
from vlmc.toolchain.families.base import Family, Processor, Tower


class Blip2(Family):
    """`Blip2ForConditionalGeneration` with OPT (arXiv 2301.12597)."""

    model_type = "blip-2"
    towers = (
        Tower(Part.VISION, "*vision_model.encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*decoder.layers"),
    )
    interface = ("*qformer.*", "*language_projection")

    def serving(self, model: nn.Module, processor: Processor) -> Serving:
        raise NotImplementedError

    def graphs(self, model: nn.Module, serving: Serving) -> list[GraphSpec]:
        raise NotImplementedError
