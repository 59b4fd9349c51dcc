"""LLaVA-NeXT: a picture and its tiles, as many as its shape asks for, with newline vectors between their rows."""

from torch import nn
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)

from tests.pico.base import IMAGE, PATCH, SIDE, TEXT, Pico, tokenizer
from tests.pico.llava import TEMPLATE, VISION

GRID = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]


def _model() -> nn.Module:
    config = LlavaNextConfig(
        vision_config=VISION,
        text_config=TEXT | {"model_type": "mistral", "max_position_embeddings": 128, "sliding_window": None},
        image_token_index=IMAGE,
        image_grid_pinpoints=GRID,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    model: nn.Module = LlavaNextForConditionalGeneration(config)
    return model


def _processor() -> LlavaNextProcessor:
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=GRID
    )
    return LlavaNextProcessor(
        images,
        tokenizer(extra_special_tokens={"image_token": "<image>"}),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


PICO = Pico(_model, _processor)
