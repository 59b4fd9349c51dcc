"""Keep-masks on disk: one bit per weight, in `masks.safetensors`, named like their weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmc.runtime.artifact import Manifest
from vlmc.runtime.errors import InputError
from vlmc.runtime.tensors import MASKS, TensorFile, open_weights, write_bytes

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def masked(weight_OI: Tensor, keep_OI: Tensor) -> Tensor:
    """Return the weight (O, I) where the boolean mask keeps it, +0.0 elsewhere.

    The same as `masked_fill`, but as a product of bits, which is faster on CPUs.
    """
    return (weight_OI.view(_BITS[weight_OI.element_size()]) * keep_OI).view(weight_OI.dtype)


def pack(mask_OI: Tensor) -> NDArray[np.uint8]:
    """Pack the rows of a boolean mask (O, I) into bytes (O, ceil(I / 8)), high bit first."""
    return np.packbits(np.ascontiguousarray(mask_OI.cpu().numpy()), axis=1)


def save_masks(folder: Path, packed: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write packed masks, sorted by the names of their weights; they are read from the mapping one by one."""
    write_bytes(folder / MASKS, packed)


def load_masks(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    """Read the boolean masks (O, I) of every layer that the manifest lists, keyed by the layer's module name.

    Raises:
        InputError: the file is missing or damaged, or a mask does not fit its weight.
    """
    return dict(KeepMasks(folder, manifest))


def load_packed(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    """Read the masks as stored, one bit per weight: bytes (O, ceil(I / 8)), high bit first.

    Raises:
        InputError: as `load_masks`.
    """
    masks = KeepMasks(folder, manifest)
    return {name: torch.from_numpy(np.array(masks.packed(name))) for name in masks}


class KeepMasks(Mapping[str, Tensor]):
    """The boolean masks (O, I) by layer name, each unpacked when it is accessed.

    Raises:
        InputError: the file is missing or damaged, or a mask does not fit its weight.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        if not (folder / MASKS).is_file():
            raise InputError(f"{folder / MASKS} is missing: prune the model again")
        self._packed, weights = TensorFile(folder / MASKS), open_weights(folder)
        self._layers = manifest.layers
        self._columns: dict[str, int] = {}
        for name, layer in manifest.layers.items():
            if layer.tensor not in self._packed or layer.tensor not in weights:
                raise InputError(f"{folder} has no mask or no weight called {layer.tensor}: prune the model again")
            rows, self._columns[name] = weights[layer.tensor].shape(layer.tensor)
            if self._packed.shape(layer.tensor) != (rows, -(-self._columns[name] // 8)):
                raise InputError(f"{folder / MASKS}: the mask of {layer.tensor} does not fit its weight")

    def packed(self, name: str) -> NDArray[np.uint8]:
        """Return a layer's mask as stored: bytes (O, ceil(I / 8)), high bit first."""
        return self._packed[self._layers[name].tensor]

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.unpackbits(self.packed(name), axis=1, count=self._columns[name]).astype(bool))

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)
