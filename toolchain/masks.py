"""Keep-masks on disk: one bit per weight, in `masks.safetensors`, named like the weights that they belong to."""

from collections.abc import Mapping
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

    As `masked_fill`, but a product of the bits, which on CPUs is ten times as quick.
    """
    return (weight_OI.view(_BITS[weight_OI.element_size()]) * keep_OI).view(weight_OI.dtype)


def pack(mask_OI: Tensor) -> NDArray[np.uint8]:
    """Pack the rows of a boolean mask (O, I) into bytes (O, ceil(I / 8)), high bit first."""
    return np.packbits(np.ascontiguousarray(mask_OI.cpu().numpy()), axis=1)


def save_masks(folder: Path, packed: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write packed masks, sorted by the names of the weights that they belong to; they are read one by one."""
    write_bytes(folder / MASKS, packed)


def load_masks(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    """Read the boolean masks (O, I) of every layer that the manifest lists, keyed by the layer's module name.

    Raises:
        InputError: the file is missing or damaged, or a mask does not fit its weight.
    """
    if not (folder / MASKS).is_file():
        raise InputError(f"{folder / MASKS} is missing: prune the model again")
    packed, weights = TensorFile(folder / MASKS), open_weights(folder)
    masks = {}
    for name, layer in manifest.layers.items():
        if layer.tensor not in packed or layer.tensor not in weights:
            raise InputError(f"{folder} has no mask or no weight called {layer.tensor}: prune the model again")
        rows, columns = weights[layer.tensor][layer.tensor].shape
        bits = packed[layer.tensor]
        if bits.shape != (rows, -(-columns // 8)):
            raise InputError(f"{folder / MASKS}: the mask of {layer.tensor} does not fit its weight")
        masks[name] = torch.from_numpy(np.unpackbits(bits, axis=1, count=columns).astype(bool))
    return masks
