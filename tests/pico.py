"""Pico models: every family in a few thousand weights, built from configs in code; for tests of the whole chain.

Matrix dimensions are multiples of 16. Weights are random with a fixed seed, and wide enough for answers to differ from
picture to picture. LLaVA's follows LLaVA 1.5 in what is awkward there: the vision tower is read at its last but one
layer, so the last one's weights never run; BLIP-2's follows OPT in its tied embeddings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
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
    PreTrainedTokenizerFast,
)

SIDE, PATCH, QUERIES, WIDTH, INNER, HEADS, ROWS = 32, 16, 4, 32, 64, 2, 64
MAX_POSITIONS = 48
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
KNOWN = (
    "USER : ASSISTANT Question Answer what which how many digit digits colour is are there the a in of and top bottom "
    "left right red green blue yellow zero one two three four five six seven eight nine yes no largest smallest sum ? . ,"
)
VOCABULARY = (*SPECIAL, *KNOWN.split())
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
QUESTIONS = ("what is the largest digit ?", "how many red digits are there ?", "which colour is the digit in the top left ?")

TURN = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}PICTURE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} REPLY{% endif %}"
)


@dataclass(frozen=True)
class Pico:
    """How to build one family's pico model and its processor."""

    model: Callable[[], nn.Module]
    processor: Callable[[], Any]


def save(family: str, folder: Path, dtype: torch.dtype = torch.float16, seed: int = 0) -> Path:
    """Write the family's pico model and processor into `folder` as transformers does; return the folder."""
    torch.manual_seed(seed)
    model: Any = FAMILIES[family].model()
    _draw_weights(model)
    model.generation_config = GenerationConfig(**IDS, max_new_tokens=8, do_sample=False)
    model.to(dtype).save_pretrained(folder)
    FAMILIES[family].processor().save_pretrained(folder)
    return folder


def picture(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Return a random RGB picture of coarse blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)


def tokenizer(**extra: object) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer with `<s>` before every text."""
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    core = Tokenizer(models.WordLevel(vocab=ids, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, padding_side="left", **names, **extra)


def _llava() -> nn.Module:
    shared = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_attention_heads": HEADS}
    vision = {"model_type": "clip_vision_model", "num_hidden_layers": 3, "image_size": SIDE, "patch_size": PATCH}
    language = {"model_type": "llama", "num_hidden_layers": 2, "num_key_value_heads": 1, "vocab_size": ROWS}
    config = LlavaConfig(
        vision_config=shared | vision | {"projection_dim": WIDTH},
        text_config=shared | language | IDS | {"max_position_embeddings": MAX_POSITIONS},
        image_token_id=SPECIAL.index("<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    model: nn.Module = LlavaForConditionalGeneration(config)
    return model


def _llava_processor() -> LlavaProcessor:
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    template = "USER: " + TURN.replace("PICTURE", "<image>\n").replace("REPLY", "ASSISTANT:")
    return LlavaProcessor(
        images,
        tokenizer(extra_special_tokens={"image_token": "<image>"}),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _blip2() -> nn.Module:
    shared = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": 2}
    vision = {"intermediate_size": INNER, "image_size": SIDE, "patch_size": PATCH}
    interface = {"intermediate_size": INNER, "vocab_size": 16, "cross_attention_frequency": 1, "encoder_hidden_size": WIDTH}
    language = {"model_type": "opt", "ffn_dim": INNER, "vocab_size": ROWS, "word_embed_proj_dim": WIDTH}
    config = Blip2Config(
        vision_config=shared | vision,
        qformer_config=shared | interface,
        text_config=shared | language | IDS | {"max_position_embeddings": MAX_POSITIONS},
        num_query_tokens=QUERIES,
        image_token_index=SPECIAL.index("<image>"),
    )
    model: nn.Module = Blip2ForConditionalGeneration(config)
    nn.init.normal_(model.get_parameter("query_tokens"))  # transformers starts them at zero, where all of them stay equal
    return model


def _blip2_processor() -> Blip2Processor:
    images = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor = Blip2Processor(images, tokenizer(additional_special_tokens=["<image>"]), num_query_tokens=QUERIES)
    processor.chat_template = "Question: " + TURN.replace("PICTURE", "").replace("REPLY", "Answer:")
    return processor


FAMILIES: dict[str, Pico] = {"llava": Pico(_llava, _llava_processor), "blip-2": Pico(_blip2, _blip2_processor)}
"""Pico models by transformers' `model_type`; tests that take a family run over all of them."""


@torch.no_grad()
def _draw_weights(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.7)
