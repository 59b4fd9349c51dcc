"""What all contestants get: the calibration samples as tensors, and a wider model with random weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from prune_peers.job import INPUTS
from vlmc.toolchain import data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.models.saved import SavedModel


@dataclass(frozen=True)
class Size:
    """A wide model: hidden and inner size, blocks of each tower, side of a patch in pixels."""

    width: int
    inner: int
    vision: int
    language: int
    patch: int


def encoded(source: SavedModel, split: str, count: int) -> list[dict[str, Tensor]]:
    """Return the first samples of the demo's data as the model's inputs, answers included."""
    encoder = Encoder(source.load_processor(), source.family, source.load())
    samples = [encoder.answered(sample) for sample in data.load("demo", split, count)]
    return [{name: sample[name] for name in INPUTS} for sample in samples]


def write_inputs(inputs: list[dict[str, Tensor]], path: Path) -> None:
    """Write the inputs of all samples in one file."""
    save_file(
        {f"{number:05d}.{name}": sample[name].contiguous() for number, sample in enumerate(inputs) for name in INPUTS}, path
    )


def write_wide(demo: SavedModel, size: Size, folder: Path) -> None:
    """Write a LLaVA of that size in bfloat16, random but for its tokens and pictures, which are the demo's."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config, processor = LlavaConfig.from_pretrained(demo.folder), demo.load_processor()
    heads, patches = size.width // 64, (config.vision_config.image_size // size.patch) ** 2
    for part in (config.vision_config, config.text_config):
        part.hidden_size, part.intermediate_size, part.num_attention_heads = size.width, size.inner, heads
    config.text_config.num_key_value_heads, config.text_config.head_dim = heads, 64
    config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers = size.vision, size.language
    config.vision_config.patch_size, config.image_seq_length = size.patch, patches
    config.text_config.max_position_embeddings = patches + 256
    processor.patch_size = size.patch
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).bfloat16().save_pretrained(folder)
    processor.save_pretrained(folder)
