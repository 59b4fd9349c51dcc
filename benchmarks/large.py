"""A LLaVA of any size with random weights, which answers the demo's questions with nonsense, and random adapters for it."""

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod, sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmc.runtime.artifact import Artifact, write
from vlmc.runtime.artifact.folder import model_files
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.models.saving import carry
from vlmc.toolchain.repair.adapters import FOLDER
from vlmc.toolchain.repair.methods import METHODS, MaskedFull
from vlmc.toolchain.settings import RepairMethod

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

    demo = SavedModel.find("demo").folder
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
    tensor = torch.randn(shape, generator=draw) / sqrt(prod(shape[1:]))
    return tensor.to(dtype)


def write_adapted(pruned: Path, folder: Path, method: RepairMethod, rank: int = 16, seed: int = 0) -> int:
    """Write a repaired artifact of a pruned one with a random adapter on every layer; return the adapter's bytes.

    The update of a weight is about a tenth of it; masked-full's tensors are as large as the model, in float32.
    """
    source = SavedModel.find(str(pruned))
    artifact = Artifact.open(pruned)
    model = source.stream(torch.device("cpu")).module
    names = [*artifact.manifest.layers, *source.family.adaptable(model)]
    shapes = {
        f"base_model.model.{name}.{part}.weight": shape
        for name in names
        for part, shape in _parts(model, name, method, rank)
    }
    with write(folder) as draft:
        carry(pruned, draft.root, model_files(artifact.manifest.files))
        (draft.root / FOLDER).mkdir()
        note = {"vlmc": json.dumps({"base_digest": artifact.digest, "method": method})}
        _write_random(draft.root / FOLDER / "adapter_model.safetensors", shapes, note, torch.Generator().manual_seed(seed))
        told = {"peft_type": METHODS[method].peft_type, "r": rank, "lora_alpha": 2.0 * rank, "target_modules": sorted(names)}
        told |= {"rank_pattern": {}, "alpha_pattern": {}, "lora_dropout": 0.0, "bias": "none"}
        (draft.root / FOLDER / "adapter_config.json").write_text(json.dumps(told), encoding="utf-8")
        draft.seal(artifact.manifest.model_copy(update={"state": "adapted"}))
    return 4 * sum(prod(shape) for shape in shapes.values())


def _parts(model: nn.Module, name: str, method: RepairMethod, rank: int) -> list[tuple[str, tuple[int, ...]]]:
    """Return the names and the shapes of what a method trains on one layer."""
    rows, columns = model.get_parameter(f"{name}.weight").shape
    if METHODS[method].pruned is MaskedFull:
        return [("delta", (rows, columns))]
    return [("lora_A", (rank, columns)), ("lora_B", (rows, rank))]


def _write_random(path: Path, shapes: Mapping[str, tuple[int, ...]], note: dict[str, str], draw: torch.Generator) -> None:
    """Write random float32 tensors into one safetensors file, one after the other."""
    ends = list(accumulate(4 * prod(shape) for shape in shapes.values()))
    spans = zip(shapes.items(), [0, *ends[:-1]], ends, strict=True)
    header: dict[str, Any] = {"__metadata__": note}
    header |= {n: {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]} for (n, shape), start, end in spans}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            stream.write((0.1 * shape[1] ** -0.5 * torch.randn(shape, generator=draw)).numpy().tobytes())
