"""Qwen2.5-VL: qkv in one matrix, windows, pictures in their own size, positions in three axes."""

from typing import Any

from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
)

from tests.pico.base import CHAT, HEADS, INNER, TEXT, WIDTH, Pico, number, tokenizer
from vlmc.runtime.processing.own import without_videos

SPECIAL = ("<turn>", "<end>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
ENDS = (2, number("<end>", SPECIAL))
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
TOKENS = {
    "image_token_id": number("<|image_pad|>", SPECIAL),
    "video_token_id": number("<|video_pad|>", SPECIAL),
    "vision_start_token_id": number("<|vision_start|>", SPECIAL),
    "vision_end_token_id": number("<|vision_end|>", SPECIAL),
}


def _model() -> nn.Module:
    vision = {"depth": 3, "hidden_size": WIDTH, "intermediate_size": INNER, "num_heads": HEADS, "out_hidden_size": WIDTH}
    config = Qwen2_5_VLConfig(
        vision_config=vision | {"patch_size": 8, "window_size": 32, "fullatt_block_indexes": [1]},
        text_config=TEXT | {"max_position_embeddings": 128, "rope_parameters": ROPE},
        **TOKENS,
    )
    model: nn.Module = Qwen2_5_VLForConditionalGeneration(config)
    return model


def processor(kind: Any, patch: int) -> Any:
    """Return a Qwen-VL processor of that kind, for pictures of 32 x 32 to 64 x 64 or the like."""
    images = Qwen2VLImageProcessorPil(patch_size=patch, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64})
    template = CHAT.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
    return without_videos(kind)(images, tokenizer(SPECIAL), chat_template=template)


PICO = Pico(_model, lambda: processor(Qwen2_5_VLProcessor, 8), ENDS)
