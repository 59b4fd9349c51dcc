"""InternVL: pictures cut into tiles with a thumbnail, a pixel shuffle, a Qwen2 language model, norms on queries and keys."""

from typing import Any

from torch import nn
from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor

from tests.pico.base import CHAT, SIDE, SIZES, TEXT, Pico, number, tokenizer
from vlmc.runtime.processing.own import without_videos

SPECIAL = ("<turn>", "<end>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")
PATCH = 8
TOKENS = (SIDE // PATCH // 2) ** 2


def _model() -> nn.Module:
    config = InternVLConfig(
        vision_config=SIZES | {"num_hidden_layers": 2, "image_size": SIDE, "patch_size": PATCH, "use_qk_norm": True},
        text_config=TEXT | {"model_type": "qwen2", "max_position_embeddings": 128},
        image_token_id=number("<IMG_CONTEXT>", SPECIAL),
        image_seq_length=TOKENS,
        tie_word_embeddings=True,
    )
    model: nn.Module = InternVLForConditionalGeneration(config)
    return model


def _processor() -> Any:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    images = GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=4)
    template = CHAT.replace("PICTURE", "<IMG_CONTEXT>")
    words = tokenizer(SPECIAL, extra_special_tokens=names)
    return without_videos(InternVLProcessor)(images, words, image_seq_length=TOKENS, chat_template=template)


PICO = Pico(_model, _processor, (2, number("<end>", SPECIAL)))
