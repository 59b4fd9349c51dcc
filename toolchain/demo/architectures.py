"""The two demo models before training: their configurations, processors and initial weights.

The sides of every prunable matrix are multiples of 16 and at least 64.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from vlmc.toolchain.demo.scenes import SIDE
from vlmc.toolchain.demo.vocabulary import (
    ANSWER,
    BOS,
    EOS,
    IMAGE,
    PAD,
    VOCABULARY,
    VOCABULARY_SIZE,
    build_tokenizer,
)

DemoModel: TypeAlias = LlavaForConditionalGeneration | Blip2ForConditionalGeneration

PATCH = 16
PATCHES = (SIDE // PATCH) ** 2
QUERIES = 16
"""Queries of the Q-Former, four for each cell of the grid."""

_HALF = [0.5, 0.5, 0.5]
_IDS = {
    "pad_token_id": VOCABULARY.index(PAD),
    "bos_token_id": VOCABULARY.index(BOS),
    "eos_token_id": VOCABULARY.index(EOS),
}

_TURN = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}SLOT{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% else %} ANSWER {% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} ANSWER{% endif %}"
).replace("ANSWER", ANSWER)

LLAVA_TEMPLATE = _TURN.replace("SLOT", f"{IMAGE}\n")

# Blip2Processor adds the image tokens itself, so its template must not contain them.
BLIP2_TEMPLATE = _TURN.replace("SLOT", "")


@dataclass(frozen=True)
class Size:
    """Width and depth of a demo model."""

    width: int = 64
    heads: int = 4
    inner: int = 128
    vision_layers: int = 3
    interface_layers: int = 2
    language_layers: int = 4


def build_llava(size: Size) -> LlavaForConditionalGeneration:
    """Return a LLaVA of that size with random weights."""
    shared = {
        "hidden_size": size.width,
        "intermediate_size": size.inner,
        "num_attention_heads": size.heads,
    }
    vision = {
        "model_type": "clip_vision_model",
        "num_hidden_layers": size.vision_layers,
        "image_size": SIDE,
    }
    language = {
        "model_type": "llama",
        "num_hidden_layers": size.language_layers,
        "vocab_size": VOCABULARY_SIZE,
    }
    config = LlavaConfig(
        vision_config=shared | vision | {"patch_size": PATCH, "projection_dim": size.width},
        text_config=shared | language | _IDS | {"max_position_embeddings": 128, "tie_word_embeddings": False},
        image_token_index=VOCABULARY.index(IMAGE),
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    _draw_weights(model)
    model.generation_config = _generation()
    return model


def build_blip2(size: Size) -> Blip2ForConditionalGeneration:
    """Return a BLIP-2 of that size with random weights, queries included."""
    model = Blip2ForConditionalGeneration(_blip2_config(size))
    _draw_weights(model)
    # transformers initialises the queries with zeros, so that they would always stay equal.
    nn.init.normal_(model.query_tokens, std=1.0)
    model.generation_config = _generation()
    model.language_model.generation_config = _generation()
    return model


def _blip2_config(size: Size) -> Blip2Config:
    shared = {"hidden_size": size.width, "num_attention_heads": size.heads}
    vision = {
        "num_hidden_layers": size.vision_layers,
        "intermediate_size": size.inner,
        "image_size": SIDE,
    }
    interface = {
        "num_hidden_layers": size.interface_layers,
        "intermediate_size": size.inner,
        "vocab_size": 16,
    }
    plain = {
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "cross_attention_frequency": 1,
    }
    language = {
        "model_type": "opt",
        "num_hidden_layers": size.language_layers,
        "ffn_dim": 2 * size.inner,
        "dropout": 0.0,
    }
    config = Blip2Config(
        vision_config=shared | vision | {"patch_size": PATCH, "initializer_range": 0.02},
        qformer_config=shared | interface | plain,
        text_config=shared
        | language
        | _IDS
        | {
            "vocab_size": VOCABULARY_SIZE,
            "max_position_embeddings": 128,
            "tie_word_embeddings": False,
        },
        num_query_tokens=QUERIES,
        image_token_index=VOCABULARY.index(IMAGE),
    )
    config.tie_word_embeddings = False
    return config


def llava_processor() -> LlavaProcessor:
    """Return the processor of `demo`."""
    return LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_mean=_HALF,
            image_std=_HALF,
        ),
        build_tokenizer(extra_special_tokens={"image_token": IMAGE}),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )


def blip2_processor() -> Blip2Processor:
    """Return the processor of `demo-blip2`."""
    images = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=_HALF, image_std=_HALF)
    processor = Blip2Processor(
        images,
        build_tokenizer(additional_special_tokens=[IMAGE]),
        num_query_tokens=QUERIES,
    )
    processor.chat_template = BLIP2_TEMPLATE
    return processor


def save(model: DemoModel, processor: LlavaProcessor | Blip2Processor, folder: Path) -> None:
    """Write a model in fp16 with its processor."""
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def _generation() -> GenerationConfig:
    return GenerationConfig(**_IDS, max_new_tokens=24, do_sample=False)


@torch.no_grad()
def _draw_weights(model: nn.Module) -> None:
    """Draw linear weights with variance 1 / inputs, and wide embeddings: transformers' 0.02 suits far wider models."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
    for name, parameter in model.named_parameters():
        if name.endswith(("class_embedding", "embeddings.position_embedding")):
            nn.init.normal_(parameter, std=0.5)
        elif name.endswith(
            (
                "o_proj.weight",
                "out_proj.weight",
                "projection.weight",
                "fc2.weight",
                "down_proj.weight",
            )
        ):
            parameter.mul_(0.4)
