"""Gemma 3: layers with sliding and with full attention, pooled picture tokens, tied embeddings, a bare projection matrix."""

from torch import nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil, Gemma3Processor

from tests.pico.base import CHAT, HEADS, SIDE, SIZES, TEXT, WIDTH, Pico, number, tokenizer

SPECIAL = ("<turn>", "<end>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")
TOKENS = 4


def _model() -> nn.Module:
    layers = {
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "num_hidden_layers": 3,
        "sliding_window": 8,
        "head_dim": WIDTH // HEADS,
    }
    config = Gemma3Config(
        vision_config=SIZES | {"num_hidden_layers": 2, "image_size": SIDE, "patch_size": 8, "vision_use_head": False},
        text_config=TEXT | layers | {"max_position_embeddings": 64, "query_pre_attn_scalar": WIDTH // HEADS},
        mm_tokens_per_image=TOKENS,
        boi_token_index=number("<start_of_image>", SPECIAL),
        eoi_token_index=number("<end_of_image>", SPECIAL),
        image_token_index=number("<image_soft_token>", SPECIAL),
    )
    model: nn.Module = Gemma3ForConditionalGeneration(config)
    nn.init.normal_(model.get_parameter("model.multi_modal_projector.mm_input_projection_weight"), std=WIDTH**-0.5)
    return model


def _processor() -> Gemma3Processor:
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    return Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer(SPECIAL, extra_special_tokens=names),
        chat_template="{{ bos_token }}" + CHAT.replace("PICTURE", "<start_of_image>"),
        image_seq_length=TOKENS,
    )


PICO = Pico(_model, _processor, (2, number("<end>", SPECIAL)))
