"""BLIP-2: a ViT, a Q-Former with learned queries, an OPT language model."""

from typing import Any

import torch
from torch import Tensor, nn

from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.artifact import Part, Serving
from vlmc.toolchain.families.base import SLOT, Processor, Tower
from vlmc.toolchain.families.graphs import Cache, Decoder, decoder_graph, embedding_graph, vision_graph
from vlmc.toolchain.families.prompting import image_pipeline
from vlmc.toolchain.families.qformer import QueryingFamily

DOCUMENTED = "Question: {prompt} Answer:"
"""BLIP-2's prompt for questions, as its model cards give it; its checkpoints bring no chat template."""


class Blip2(QueryingFamily):
    """`Blip2ForConditionalGeneration` with OPT (arXiv 2301.12597)."""

    name = model_type = "blip-2"
    languages = ("opt",)
    towers = (
        Tower(Part.VISION, "*vision_model.encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*decoder.layers"),
    )
    documented = DOCUMENTED

    def serving(self, model: nn.Module, processor: Processor) -> Serving:
        blip2: Any = model
        return Serving(
            image=image_pipeline(processor.image_processor),
            image_slot=SLOT,
            image_token_id=blip2.config.image_token_index,
            image_tokens=blip2.config.num_query_tokens,
            image_position="front",
            prompt=SLOT + self.prompt(processor),
            eos_token_ids=self.end_ids(model, processor),
            max_positions=blip2.config.text_config.max_position_embeddings,
        )

    def graphs(self, model: nn.Module, serving: Serving) -> list[GraphSpec]:
        blip2: Any = model
        embedding = blip2.get_input_embeddings()
        cache = Cache.of(blip2.config.text_config)
        return [
            vision_graph(Blip2Vision(blip2), serving, blip2.config.vision_config.image_size),
            embedding_graph(embedding, serving),
            decoder_graph(Decoder(blip2.language_model, None), embedding, cache, serving),
        ]


class Blip2Vision(nn.Module):
    """Vision tower, Q-Former and projection."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.vision_model
        self.query_tokens = model.query_tokens
        self.qformer = model.qformer
        self.projection = model.language_projection

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (B, C, H, W) -> image features (B, N, D)."""
        patches = self.tower(pixel_values).last_hidden_state
        queries = self.query_tokens.expand(patches.shape[0], -1, -1)
        seen = torch.ones(patches.shape[:-1], dtype=torch.long, device=patches.device)
        output = self.qformer(query_embeds=queries, encoder_hidden_states=patches, encoder_attention_mask=seen)
        features: Tensor = self.projection(output.last_hidden_state)
        return features
