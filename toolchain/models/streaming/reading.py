"""Reading parameters out of safetensors files when they are asked for.

They are copied into memory rather than mapped: of a mapped file more stays resident than is used, up to the pages' whole
neighbourhood in the system's cache.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.runtime.tensors import TensorFile

FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Types of weights that can be pruned, by safetensors' names."""


@dataclass(frozen=True)
class Place:
    """Where a parameter is stored: a file, and its name there."""

    file: TensorFile
    name: str

    @property
    def dtype(self) -> torch.dtype | None:
        """The type that it is stored in; None for one that is not in `FLOATS`."""
        return FLOATS.get(self.file.dtype(self.name))

    def read(self) -> Tensor:
        """Return the parameter as it is stored."""
        if self.dtype is None:
            with safe_open(self.file.path, framework="pt") as file:
                found: Tensor = file.get_tensor(self.name)
            return found
        tensor = torch.empty(self.file.shape(self.name), dtype=self.dtype)
        if tensor.numel():
            with self.file.path.open("rb", buffering=0) as stream:
                stream.seek(self.file.span(self.name)[0])
                _fill(tensor.reshape(-1).view(torch.uint8), stream)
        return tensor


def _fill(bytes_N: Tensor, stream: FileIO) -> None:
    """Fill a buffer; one call of the system reads 2 GiB at most.

    Raises:
        InputError: the file ends too early.
    """
    array: Any = bytes_N.numpy()
    left = memoryview(array)
    while left:
        count = stream.readinto(left)
        if not count:
            raise InputError(f"{stream.name} is cut short: copy the file again")
        left = left[count:]


class Parameters(Mapping[str, Tensor]):
    """Parameters by their names; each is read, and cast to the type that the model computes in, when it is asked for."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Place, torch.dtype]] = {}

    def put(self, name: str, place: Place, dtype: torch.dtype) -> None:
        """From now on read a parameter there, and cast it to that type."""
        self._places[name] = place, dtype

    def stored(self, name: str) -> Tensor:
        """Return a parameter as it is stored."""
        return self._places[name][0].read()

    def __getitem__(self, name: str) -> Tensor:
        place, dtype = self._places[name]
        return place.read().to(dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
