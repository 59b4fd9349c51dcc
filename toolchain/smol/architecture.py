"""The model `smol` before training: an Idefics3 of a small vision encoder, a linear connector and SmolLM2-135M-Instruct."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
)

from vlmc.toolchain.smol.language import IMAGE_ID
from vlmc.toolchain.smol.scenes import SIDE

PATCH, MERGED = 8, 2
"""Side of a patch in pixels, and how many patches in a row and in a column make an image token."""

ROW = SIDE // PATCH // MERGED
TOKENS = ROW**2
"""Image tokens in a row of the image, and in all of it."""

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
    """Width and depth of the vision encoder."""

    hidden_size: int = 192
    intermediate_size: int = 768
    num_attention_heads: int = 6
    num_hidden_layers: int = 4


def configure(language: dict[str, Any], size: Size | None = None) -> Idefics3Config:
    """Return the configuration of an Idefics3 around a language model of that configuration."""
    return Idefics3Config(
        vision_config=asdict(size or Size()) | {"image_size": SIDE, "patch_size": PATCH},
        text_config=language,
        image_token_id=IMAGE_ID,
        scale_factor=MERGED,
        tie_word_embeddings=True,
    )


def build(config: Idefics3Config) -> Idefics3ForConditionalGeneration:
    """Return the model with random weights; those of the vision encoder and the connector suit their widths."""
    model = Idefics3ForConditionalGeneration(config)
    _draw(model.model.vision_model)
    _draw(model.model.connector)
    model.generation_config = GenerationConfig(
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=config.text_config.eos_token_id,
        pad_token_id=config.text_config.pad_token_id,
        max_new_tokens=64,
        do_sample=False,
    )
    return model


def _draw(part: nn.Module) -> None:
    """Draw weights whose variance is 1 / inputs: transformers' 0.02 suits far wider models."""
    for module in part.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)


def processor(tokenizer: Any) -> Idefics3Processor:
    """Return the processor of `smol`: every image becomes one tile of 64 x 64 pixels."""
    side = {"longest_edge": SIDE}
    images = Idefics3ImageProcessorPil(size=side, max_image_size=side, image_mean=_HALF, image_std=_HALF)
    return Idefics3Processor(images, tokenizer, image_seq_len=TOKENS, chat_template=TEMPLATE)
