"""PaliGemma: a prefix read in both directions, a suffix, tied embeddings; no chat template.

PaliGemma 2 has Gemma 2 in it: capped scores and logits, and layers with a window.
"""

from functools import partial
from typing import Any

from torch import nn
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor, SiglipImageProcessorPil

from tests.pico.base import HEADS, IMAGE, MAX_POSITIONS, PATCH, ROWS, SIDE, SIZES, TEXT, WIDTH, Pico, tokenizer

GEMMA_2 = {
    "model_type": "gemma2",
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
    "query_pre_attn_scalar": 8,
}
"""Scores and logits of a pico model are small: the caps are low enough to change them."""


def _model(of_language: dict[str, Any]) -> nn.Module:
    vision = {"num_hidden_layers": 2, "image_size": SIDE, "patch_size": PATCH, "vision_use_head": False}
    language = {"head_dim": WIDTH // HEADS, "max_position_embeddings": MAX_POSITIONS} | of_language
    config = PaliGemmaConfig(
        vision_config=SIZES | vision | {"model_type": "siglip_vision_model"},
        text_config=TEXT | language,
        image_token_index=IMAGE,
        vocab_size=ROWS,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    model: nn.Module = PaliGemmaForConditionalGeneration(config)
    return model


def _processor() -> PaliGemmaProcessor:
    images = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    images.image_seq_length = (SIDE // PATCH) ** 2
    return PaliGemmaProcessor(images, tokenizer(extra_special_tokens={"image_token": "<image>"}))


PICO = Pico(partial(_model, {"model_type": "gemma"}), _processor)
PICO_2 = Pico(partial(_model, GEMMA_2), _processor)
