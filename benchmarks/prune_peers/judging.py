"""Judging results that lie on disk: each layer's output error on held-out samples, where masks agree, answers right.

Shapes: O out features, I in features, L tokens.
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from vlmc.runtime.artifact import Artifact
from vlmc.toolchain import data
from vlmc.toolchain.evaluate.compare import measure
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.saved import SavedModel


def weights(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a model's folder as they are stored."""
    files = sorted(folder.glob("model*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def tensors_of_layers(ours: Path) -> dict[str, str]:
    """Map the name of every pruned layer to that of its tensor, by one of our artifacts."""
    return {name: layer.tensor for name, layer in Artifact.open(ours).manifest.layers.items()}


@torch.no_grad()
def layer_errors(
    dense: SavedModel, layers: Mapping[str, str], pruned: Mapping[str, Path], inputs: Sequence[Mapping[str, Tensor]]
) -> dict[str, dict[str, float]]:
    """Return ||(W - W') X|| / ||W X|| of every result and layer, X being what the dense model feeds the layer."""
    model, stored = dense.load(), {name: weights(folder) for name, folder in pruned.items()}
    squares = {layer: dict.fromkeys(["", *pruned], 0.0) for layer in layers}

    def add(layer: str, tensor: str, module: torch.nn.Linear, args: tuple[Tensor, ...]) -> None:
        x_LI = args[0].flatten(0, -2)
        squares[layer][""] += float((x_LI @ module.weight.T).square().sum())
        for name, found in stored.items():
            squares[layer][name] += float((x_LI @ (module.weight - found[tensor].float()).T).square().sum())

    for layer, tensor in layers.items():
        model.get_submodule(layer).register_forward_pre_hook(partial(add, layer, tensor))
    for sample in inputs:
        model(**sample, use_cache=False)
    return {name: {layer: (one[name] / one[""]) ** 0.5 for layer, one in squares.items()} for name in pruned}


def mask_agreement(ours: Path, theirs: Path) -> float:
    """Return the percentage of positions where our mask agrees with their zeros."""
    masks, found = load_masks(ours, Artifact.open(ours).manifest), weights(theirs)
    tensors = tensors_of_layers(ours)
    same = sum(int((mask_OI == (found[tensors[name]] != 0)).sum()) for name, mask_OI in masks.items())
    return 100 * same / sum(mask_OI.numel() for mask_OI in masks.values())


def accuracy(dense: SavedModel, folder: Path, questions: int) -> float:
    """Return the percentage of right answers to test questions."""
    if not (folder / "processor_config.json").is_file():  # peers save the model alone
        for path in dense.folder.iterdir():
            if path.suffix != ".safetensors" and not (folder / path.name).exists():
                shutil.copy(path, folder)
    samples = list(data.load("demo", "test", questions))
    return 100 * measure(SavedModel("pruned", folder), samples, Progress(quiet=True), title="pruned").overall
