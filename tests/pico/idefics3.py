"""Idefics3 and SmolVLM2: pictures split into tiles with a thumbnail, a pixel shuffle; SmolVLM's embeddings are tied."""

from typing import Any

from torch import nn
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from tests.pico.base import CHAT, IMAGE, SIDE, SIZES, TEXT, Pico, number, tokenizer

CELLS = tuple(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))
SPECIAL = ("<turn>", "<end>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *CELLS)
SCALE, PATCH = 2, 8
TOKENS = (SIDE // PATCH // SCALE) ** 2


def _model(config: Any, model: Any, tied: bool) -> nn.Module:
    made: nn.Module = model(
        config(
            vision_config=SIZES | {"num_hidden_layers": 2, "image_size": SIDE, "patch_size": PATCH},
            text_config=TEXT | {"model_type": "llama", "max_position_embeddings": 128},
            image_token_id=IMAGE,
            scale_factor=SCALE,
            tie_word_embeddings=tied,
        )
    )
    return made


def _processor(images: Any) -> Idefics3Processor:
    """Return Idefics3's processor for both: SmolVLM's own wants num2words and torchvision."""
    sizes = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    words = tokenizer(SPECIAL, extra_special_tokens={"image_token": "<image>"})
    return Idefics3Processor(images(**sizes), words, image_seq_len=TOKENS, chat_template=CHAT.replace("PICTURE", "<image>"))


ENDS = (2, number("<end>", SPECIAL))
PICO = Pico(
    lambda: _model(Idefics3Config, Idefics3ForConditionalGeneration, tied=False),
    lambda: _processor(Idefics3ImageProcessorPil),
    ENDS,
)
PICO_SMOL = Pico(
    lambda: _model(SmolVLMConfig, SmolVLMForConditionalGeneration, tied=True),
    lambda: _processor(SmolVLMImageProcessorPil),
    ENDS,
)
