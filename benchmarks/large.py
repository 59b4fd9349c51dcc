"""A LLaVA of any size with random weights, which answers the demo's questions with nonsense; written shard by shard."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.toolchain.demo.checkpoints import locate

SHARD = 500_000_000  # bytes
_KEPT = {".json", ".jinja"}  # the demo's tokenizer, processor and template


@dataclass(frozen=True)
class Size:
    """A LLaVA's measures: the language model's, and how many blocks each tower has."""

    hidden: int
    inner: int
    blocks: int
    vision_blocks: int
    rows: int  # of the vocabulary


def write_llava(folder: Path, size: Size, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> int:
    """Write the model with the demo's processor into a new folder; return the bytes of its weights."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    demo = locate("demo")
    folder.mkdir(parents=True)
    for path in demo.iterdir():
        if path.suffix in _KEPT and "index" not in path.name:
            shutil.copyfile(path, folder / path.name)
    config = json.loads((demo / "config.json").read_text(encoding="utf-8"))
    shared = {"hidden_size": size.hidden, "intermediate_size": size.inner}
    heads = {"num_attention_heads": size.hidden // 64, "num_key_value_heads": size.hidden // 64, "head_dim": 64}
    config["text_config"] |= shared | heads | {"num_hidden_layers": size.blocks, "vocab_size": size.rows}
    vision = {"num_hidden_layers": size.vision_blocks, "num_attention_heads": size.hidden // 64}
    config["vision_config"] |= shared | vision
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    return _write_shards(folder, model.state_dict(), dtype, torch.Generator().manual_seed(seed))


def _write_shards(folder: Path, shapes: Mapping[str, Tensor], dtype: torch.dtype, draw: torch.Generator) -> int:
    shards: list[dict[str, Tensor]] = [{}]
    weight_map, total = {}, 0
    for name, shape in shapes.items():
        if not shape.is_floating_point():
            continue
        tensor = _random(name, tuple(shape.shape), dtype, draw)
        shards[-1][name] = tensor
        total += tensor.nbytes
        weight_map[name] = f"model-{len(shards):05}.safetensors"
        if sum(one.nbytes for one in shards[-1].values()) >= SHARD:
            save_file(shards[-1], folder / f"model-{len(shards):05}.safetensors", {"format": "pt"})
            shards[-1].clear()
            shards.append({})
    save_file(shards[-1], folder / f"model-{len(shards):05}.safetensors", {"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return total


def _random(name: str, shape: tuple[int, ...], dtype: torch.dtype, draw: torch.Generator) -> Tensor:
    """Return weights that keep activations at the same size from block to block."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype) if name.endswith("weight") else torch.zeros(shape, dtype=dtype)
    tensor = torch.randn(shape, generator=draw) * torch.Size(shape[1:]).numel() ** -0.5
    return tensor.to(dtype)
