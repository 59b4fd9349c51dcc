"""LLaVA: a CLIP vision tower, an MLP projector, a Llama-like language model."""

from torch import nn

from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.artifact import Part, Serving
from vlmc.toolchain.families.base import Family, Processor, Tower


class Llava(Family):
    """`LlavaForConditionalGeneration` (arXiv 2304.08485)."""

    model_type = "llava"
    towers = (
        Tower(Part.VISION, "*vision_tower.*encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ("*multi_modal_projector.*",)

    def serving(self, model: nn.Module, processor: Processor) -> Serving:
        raise NotImplementedError

    def graphs(self, model: nn.Module, serving: Serving) -> list[GraphSpec]:
        raise NotImplementedError
