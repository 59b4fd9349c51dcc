"""The blocks that are pruned already, one file each, written in one step: an interrupted run is resumed from them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.runtime.tensors import TensorFile
from vlmc.toolchain.models.masks import pack
from vlmc.toolchain.models.saving import write_tensors
from vlmc.toolchain.prune.refinements.reconstruct import Reconstruction

MASK = "mask of "


@dataclass(frozen=True)
class PrunedLayer:
    """What is noted of a layer: its name, its weight's name in the model's files, its pattern, how many weights are kept."""

    name: str
    tensor: str
    pattern: str
    kept: int
    size: int
    raised_damping: float | None = None


class Journal:
    """The finished blocks of one run of `prune`, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, block: str) -> Path:
        """Return where a block's weights and masks are once it is finished."""
        return self.folder / f"{block}.safetensors"

    def holds(self, block: str) -> bool:
        """Whether a block is finished."""
        return self.path(block).is_file()

    def write(
        self,
        block: str,
        layers: Sequence[PrunedLayer],
        weights: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        trained: Reconstruction | None = None,
    ) -> None:
        """Write one block's pruned weights (O, I) and keep-masks (O, I), both by tensor name."""
        tensors = {name: weight.cpu() for name, weight in weights.items()}
        tensors |= {MASK + name: torch.from_numpy(pack(mask)) for name, mask in masks.items()}
        notes = {"layers": [asdict(layer) for layer in layers], "trained": trained and asdict(trained)}
        write_tensors(self.path(block), tensors, {name: json.dumps(note) for name, note in notes.items()})

    def layers(self, block: str) -> list[PrunedLayer]:
        """Return a finished block's layers.

        Raises:
            InputError: its file is damaged.
        """
        return [PrunedLayer(**entry) for entry in self._note(block, "layers")]

    def trained(self, block: str) -> Reconstruction | None:
        """Return how the training of a finished block ended, None where it was not trained."""
        note = self._note(block, "trained")
        return None if note is None else Reconstruction(**note)

    def _note(self, block: str, name: str) -> Any:
        try:
            with safe_open(self.path(block), framework="pt") as file:
                return json.loads(file.metadata()[name])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.path(block)} is damaged ({error}): leave --resume out to start over") from None

    def weights(self, blocks: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and the pruned weights of all those blocks' layers, one at a time."""
        for block in blocks:
            with safe_open(self.path(block), framework="pt") as file:
                for layer in self.layers(block):
                    yield layer.tensor, file.get_tensor(layer.tensor)

    def masks(self, blocks: Sequence[str]) -> "Mapping[str, NDArray[np.uint8]]":
        """Map the weights' names to their packed masks (O, ceil(I / 8)), each read when it is asked for."""
        files = [TensorFile(self.path(block)) for block in blocks]
        return _Masks({name.removeprefix(MASK): file for file in files for name in file if name.startswith(MASK)})


class _Masks(Mapping[str, NDArray[np.uint8]]):
    def __init__(self, files: Mapping[str, TensorFile]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        return self._files[name][MASK + name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
