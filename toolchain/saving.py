"""Writing a model back in transformers' own layout, in the type that it came in."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.tensors import open_weights
from vlmc.toolchain.models import Checkpoint

_KEEP = {".json", ".txt", ".jinja", ".model"}  # configuration, tokenizer and processor files
_SKIP = {"manifest.json", "model.safetensors.index.json"}


def save_model(model: nn.Module, source: Checkpoint, folder: Path) -> None:
    """Write the weights in the source's type, and copy its configuration, tokenizer and processor files.

    The model is converted in place; float32 copies of half-precision weights round back to the bits they came from.
    """
    model.to(source.dtype)
    model.save_pretrained(folder)  # type: ignore[operator]
    copy_companions(source.folder, folder)


def copy_companions(source: Path, folder: Path) -> None:
    """Copy everything that belongs to a model but its weights, second tokenizers too; what stands in `source` wins."""
    for place in (source, *sorted(path.parent for path in source.glob("*/tokenizer_config.json"))):
        target = folder / place.relative_to(source)
        target.mkdir(exist_ok=True)
        for path in sorted(place.iterdir()):
            if path.is_file() and path.suffix in _KEEP and path.name not in _SKIP:
                shutil.copyfile(path, target / path.name)


def tensor_names(model: nn.Module, folder: Path, layers: Iterable[str]) -> dict[str, str]:
    """Map each layer to its weight's name in the saved files.

    transformers saves some families under older names than their modules bear, so a weight is found by its bytes.

    Raises:
        CheckFailed: a layer's weight was not saved.
    """
    saved: dict[str, list[str]] = {}
    for name, file in open_weights(folder).items():
        saved.setdefault(hashlib.sha256(file[name].tobytes()).hexdigest(), []).append(name)
    return {layer: _closest(layer, saved.get(_digest(model.get_submodule(layer)), [])) for layer in layers}


def _digest(layer: nn.Module) -> str:
    weight = cast(Tensor, layer.weight).detach().cpu().contiguous()
    return hashlib.sha256(weight.view(torch.uint8).numpy().tobytes()).hexdigest()


def _closest(layer: str, names: list[str]) -> str:
    if not names:
        raise CheckFailed(f"the weight of {layer} is not among the saved tensors")
    return max(names, key=lambda name: _shared_tail(f"{layer}.weight", name))


def _shared_tail(one: str, other: str) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
