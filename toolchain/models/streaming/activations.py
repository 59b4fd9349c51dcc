"""What passes between blocks, sample by sample: kept in memory, or on disk where a folder is given."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils import _pytree as pytree

Tree = Any  # tensors and other values in tuples, lists and dicts


class Activations:
    """A tree of tensors for each sample: kept on the CPU, and returned on `device`."""

    def __init__(self, device: torch.device, folder: Path | None = None) -> None:
        self._device, self._folder = device, folder
        self._kept: dict[int, tuple[list[Any], pytree.TreeSpec]] = {}

    def put(self, sample: int, tree: Tree) -> None:
        """Keep a sample's tree; it replaces an earlier one."""
        leaves, form = pytree.tree_flatten(tree)
        leaves = [leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            tensors = {str(place): _packed(leaf) for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
            save_file(tensors, self._folder / f"{sample}.safetensors")
            leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._kept[sample] = (leaves, form)

    def get(self, sample: int) -> Tree:
        """Return a sample's tree."""
        leaves, form = self._kept[sample]
        leaves = list(leaves)
        if self._folder is not None:
            for place, tensor in load_file(self._folder / f"{sample}.safetensors").items():
                leaves[int(place)] = tensor
        leaves = [leaf.to(self._device) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return pytree.tree_unflatten(leaves, form)

    def drop(self, sample: int) -> None:
        """Forget a sample's tree."""
        del self._kept[sample]
        if self._folder is not None:
            (self._folder / f"{sample}.safetensors").unlink()

    def clear(self) -> None:
        """Forget all trees."""
        for sample in list(self._kept):
            self.drop(sample)


def same(tree: Tree, other: Tree) -> bool:
    """Whether two trees are equal to the last bit."""
    (leaves, form), (others, other_form) = pytree.tree_flatten(tree), pytree.tree_flatten(other)
    return form == other_form and all(map(_equal, leaves, others))


def _equal(leaf: Any, other: Any) -> bool:
    if isinstance(leaf, Tensor) and isinstance(other, Tensor):
        return leaf.dtype == other.dtype and torch.equal(leaf, other)
    return type(leaf) is type(other) and bool(leaf == other)


def _packed(tensor: Tensor) -> Tensor:
    """Return a copy that safetensors can write: in the usual order, and sharing its memory with no other."""
    return tensor.clone(memory_format=torch.contiguous_format)
