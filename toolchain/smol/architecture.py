"""The model `smol` before training: a LLaVA of a small CLIP vision tower, a projector and SmolLM2-135M-Instruct."""

from dataclasses import asdict, dataclass
from typing import Any

from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from vlmc.toolchain.demo.architectures import draw_weights
from vlmc.toolchain.smol.language import IMAGE_ID
from vlmc.toolchain.smol.scenes import SIDE

PATCH = 16
PATCHES = (SIDE // PATCH) ** 2

_HALF = [0.5, 0.5, 0.5]

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own turns, with the image before the question and without a system message that nobody wrote."""


@dataclass(frozen=True)
class Size:
    """Width and depth of the vision tower, in CLIP's words."""

    hidden_size: int = 256
    intermediate_size: int = 1024
    num_attention_heads: int = 8
    num_hidden_layers: int = 6


def configure(language: dict[str, Any], size: Size | None = None) -> LlavaConfig:
    """Return the configuration of a LLaVA around a language model of that configuration."""
    vision = asdict(size or Size()) | {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH}
    return LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=IMAGE_ID,
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )


def build(config: LlavaConfig) -> LlavaForConditionalGeneration:
    """Return the model with random weights; those of the vision tower and the projector suit their widths."""
    model = LlavaForConditionalGeneration(config)
    draw_weights(model.model.vision_tower)
    draw_weights(model.model.multi_modal_projector)
    model.generation_config = GenerationConfig(
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=config.text_config.eos_token_id,
        pad_token_id=config.text_config.pad_token_id,
        max_new_tokens=64,
        do_sample=False,
    )
    return model


def processor(tokenizer: Any) -> LlavaProcessor:
    """Return the processor of `smol`."""
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_mean=_HALF, image_std=_HALF
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
