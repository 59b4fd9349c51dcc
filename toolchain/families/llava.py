"""LLaVA: a CLIP vision tower, an MLP projector, a Llama-like language model."""

from typing import Any

import torch
from torch import Tensor, nn

from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.artifact import Part, Serving
from vlmc.runtime.errors import InputError
from vlmc.toolchain.families.base import Family, Processor, Tower
from vlmc.toolchain.families.graphs import Cache, Decoder, decoder_graph, embedding_graph, vision_graph
from vlmc.toolchain.families.prompting import QUESTION, image_pipeline, rendered_template, stop_ids

DOCUMENTED = "USER: {slot}\n" + QUESTION + " ASSISTANT:"
"""LLaVA 1.5's prompt, for checkpoints that bring no chat template."""


class Llava(Family):
    """`LlavaForConditionalGeneration` (arXiv 2304.08485)."""

    model_type = "llava"
    towers = (
        Tower(Part.VISION, "*vision_tower.*encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ("*multi_modal_projector.*",)

    def serving(self, model: nn.Module, processor: Processor) -> Serving:
        llava: Any = model
        config = llava.config
        slot = str(processor.image_token)
        prompt = rendered_template(processor) or DOCUMENTED.format(slot=slot, prompt=QUESTION)
        if prompt.count(slot) != 1:
            raise InputError(f"the model's chat template has {prompt.count(slot)} slots for the picture, expected one")
        side = config.vision_config.image_size
        encoder = LlavaVision(llava).eval()
        with torch.no_grad():
            tokens = encoder(torch.zeros(1, 3, side, side, dtype=llava.dtype)).shape[1]
        return Serving(
            image=image_pipeline(processor.image_processor),
            image_slot=slot,
            image_token_id=config.image_token_id,
            image_tokens=tokens,
            image_position="inline",
            prompt=prompt,
            eos_token_ids=stop_ids(llava.generation_config, config.text_config),
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

    def visual_tokens(self, model: nn.Module, input_ids_BT: Tensor) -> Tensor:
        llava: Any = model
        found: Tensor = input_ids_BT == llava.config.image_token_id
        return found


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
