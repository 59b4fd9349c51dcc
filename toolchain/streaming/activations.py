"""What runs between blocks, sample by sample: kept in memory, or on disk where a folder is given."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils import _pytree as pytree

Tree = Any  # tensors and other values in tuples, lists and dicts


class Activations:
    """Trees of tensors by name; put on the CPU, and on `device` again when they are asked for."""

    def __init__(self, device: torch.device, folder: Path | None = None) -> None:
        self._device, self._folder = device, folder
        self._kept: dict[str, tuple[list[Any], pytree.TreeSpec]] = {}

    def put(self, name: str, tree: Tree) -> None:
        """Keep a tree under a name, in the place of what had it before."""
        leaves, form = pytree.tree_flatten(tree)
        leaves = [leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            tensors = {str(place): leaf.clone() for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
            save_file(tensors, self._folder / f"{name}.safetensors")
            leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._kept[name] = (leaves, form)

    def get(self, name: str) -> Tree:
        """Return the tree of that name."""
        leaves, form = self._kept[name]
        leaves = list(leaves)
        if self._folder is not None:
            for place, tensor in load_file(self._folder / f"{name}.safetensors").items():
                leaves[int(place)] = tensor
        leaves = [leaf.to(self._device) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return pytree.tree_unflatten(leaves, form)
