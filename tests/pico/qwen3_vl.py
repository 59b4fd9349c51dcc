"""Qwen3-VL: qkv in one matrix, two deepstack layers, tied embeddings."""

from torch import nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from tests.pico.base import HEADS, INNER, TEXT, WIDTH, Pico
from tests.pico.qwen2_5_vl import ENDS, ROPE, TOKENS, processor


def _model() -> nn.Module:
    vision = {"depth": 3, "hidden_size": WIDTH, "intermediate_size": INNER, "num_heads": HEADS, "out_hidden_size": WIDTH}
    deepstack = {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16, "patch_size": 8}
    language = {"head_dim": WIDTH // HEADS, "num_hidden_layers": 3, "rope_parameters": ROPE | {"mrope_interleaved": True}}
    config = Qwen3VLConfig(
        vision_config=vision | deepstack,
        text_config=TEXT | language | {"max_position_embeddings": 128},
        tie_word_embeddings=True,
        **TOKENS,
    )
    model: nn.Module = Qwen3VLForConditionalGeneration(config)
    return model


PICO = Pico(_model, lambda: processor(Qwen3VLProcessor, 8), ENDS)
