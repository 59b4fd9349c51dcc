"""What pico models share: sizes, words, weights, pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

SIDE, PATCH, QUERIES, WIDTH, INNER, HEADS, ROWS = 32, 16, 4, 32, 64, 2, 64
MAX_POSITIONS = 48
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
KNOWN = (
    "USER : ASSISTANT Question Answer what which how many digit digits colour is are there the a in of and top bottom "
    "left right red green blue yellow zero one two three four five six seven eight nine yes no largest smallest sum ? . ,"
)
VOCABULARY = (*SPECIAL, *KNOWN.split())
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IMAGE = SPECIAL.index("<image>")
SIZES = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_attention_heads": HEADS}
TEXT = SIZES | IDS | {"num_hidden_layers": 2, "num_key_value_heads": 1, "vocab_size": ROWS}
"""A small Llama-like language model; `max_position_embeddings` is left to say."""

TURN = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}PICTURE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} REPLY{% endif %}"
)
CHAT = (
    "{% for message in messages %}<turn>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}PICTURE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
"""A template that ends every turn, an answer too, with a token of its own, as most chat models' do."""


@dataclass(frozen=True)
class Pico:
    """How to build one family's pico model and its processor.

    `ends` are the tokens that its generation configuration names as ends of an answer.
    """

    model: Callable[[], nn.Module]
    processor: Callable[[], Any]
    ends: tuple[int, ...] = (2,)


def picture(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Return a random RGB picture of coarse blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)


def tokenizer(
    special: tuple[str, ...] = (), words: tuple[str, ...] = VOCABULARY, **extra: object
) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer with `<s>` before every text; `special` are more tokens, numbered after the words."""
    ids = {token: number for number, token in enumerate((*words, *special))}
    core = Tokenizer(models.WordLevel(vocab=ids, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=core, padding_side="left", **names, **extra)
    if special:
        made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def number(token: str, special: tuple[str, ...]) -> int:
    """Return the id of a special token in a tokenizer that was made with those."""
    return (*VOCABULARY, *special).index(token)


@torch.no_grad()
def draw_weights(model: nn.Module) -> None:
    """Make the weights wide enough for answers to differ from picture to picture."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.7)


DEPTH = ("depth", "num_hidden_layers", "num_layers", "num_decoder_layers")
"""How configurations call the number of blocks; T5 has one for its encoder and one for its decoder."""


def cut(model: Any, depths: Mapping[str, int]) -> nn.Module:
    """Return a model with the first blocks of another one alone: so many of each part of its configuration."""
    settings = model.config.to_dict()
    for part, depth in depths.items():
        settings[part] |= {name: depth for name in DEPTH if name in settings[part]}
        settings[part].pop("layer_types", None)
    shorter: nn.Module = type(model)(type(model.config).from_dict(settings))
    shorter.load_state_dict(model.state_dict(), strict=False)
    return shorter
