"""LLaVA: a CLIP vision tower, an MLP projector, a Llama-like language model."""

from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.artifact import Part, Serving
from vlmc.toolchain.families.base import Family, Processor, Tower
from vlmc.toolchain.families.graphs import Cache, Decoder, decoder_graph, embedding_graph, vision_graph
from vlmc.toolchain.families.prompting import image_pipeline


class Llava(Family):
    """`LlavaForConditionalGeneration` (arXiv 2304.08485)."""

    name = model_type = "llava"
    towers = (
        Tower(Part.VISION, "*vision_tower.*encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ("*multi_modal_projector.*",)
    documented = "{system}USER: {images}\n{prompt} ASSISTANT:"  # LLaVA 1.5's

    def serving(self, model: nn.Module, processor: Processor) -> Serving:
        config = cast(Any, model).config
        side, slot = config.vision_config.image_size, self.picture_token(processor)
        blank = processor(images=Image.new("RGB", (side, side)), text=slot, return_tensors="pt")
        return Serving(
            image=image_pipeline(processor.image_processor),
            image_slot=slot,
            image_token_id=config.image_token_id,
            image_tokens=int((blank["input_ids"] == config.image_token_id).sum()),
            image_position="inline",
            prompt=self.prompt(processor),
            eos_token_ids=self.end_ids(model, processor),
            max_positions=config.text_config.max_position_embeddings,
        )

    def graphs(self, model: nn.Module, serving: Serving) -> list[GraphSpec]:
        llava: Any = model
        embedding = llava.get_input_embeddings()
        cache = Cache.of(llava.config.text_config)
        return [
            vision_graph(LlavaVision(model), serving, llava.config.vision_config.image_size),
            embedding_graph(embedding, serving),
            decoder_graph(Decoder(llava.model.language_model, llava.lm_head), embedding, cache, serving),
        ]


class LlavaVision(nn.Module):
    """Vision tower and projector, called one after the other: `get_image_features` would fix the batch in the graph."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.model.vision_tower
        self.projector = model.model.multi_modal_projector
        layer = model.config.vision_feature_layer
        self.layers = [layer] if isinstance(layer, int) else list(layer)
        self.first = 1 if model.config.vision_feature_select_strategy == "default" else 0  # 1 drops the class token

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (B, C, H, W) -> image features (B, N, D)."""
        states = self.tower(pixel_values, output_hidden_states=True).hidden_states
        features: Tensor = self.projector(torch.cat([states[layer][:, self.first :] for layer in self.layers], -1))
        return features
