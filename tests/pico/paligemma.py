"""PaliGemma: a prefix read in both directions, a suffix, tied embeddings; no chat template."""

from torch import nn
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor, SiglipImageProcessorPil

from tests.pico.base import HEADS, IMAGE, MAX_POSITIONS, PATCH, ROWS, SIDE, SIZES, TEXT, WIDTH, Pico, tokenizer


def _model() -> nn.Module:
    vision = {"num_hidden_layers": 2, "image_size": SIDE, "patch_size": PATCH, "vision_use_head": False}
    language = {"model_type": "gemma", "head_dim": WIDTH // HEADS, "max_position_embeddings": MAX_POSITIONS}
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


PICO = Pico(_model, _processor)
