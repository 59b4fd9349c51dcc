"""Reading safetensors as raw bits, without torch: every dtype, memory-mapped, and truncation is noticed.

numpy has no bfloat16 or float8; whether a weight is zero is a question about its bits, so bits are what this module gives.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.errors import InputError

MASKS = "masks.safetensors"
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_MAX_HEADER = 100_000_000  # safetensors' own limit


class TensorFile(Mapping[str, NDArray[Any]]):
    """The tensors of one safetensors file, as unsigned integers of their item size (read-only, memory-mapped).

    Raises:
        InputError: the file is no safetensors file, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header, self._start = _read_header(path)
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        self._check_length()

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self._header[name]
        begin, end = entry["data_offsets"]
        size = _BYTES.get(entry["dtype"], 1)
        raw = self._bytes[self._start + begin : self._start + end]
        return np.frombuffer(raw, dtype=f"<u{size}").reshape(entry["shape"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)

    def dtype(self, name: str) -> str:
        """Return the tensor's type in safetensors' spelling, such as `F16` or `BF16`."""
        return str(self._header[name]["dtype"])

    def _check_length(self) -> None:
        for name, entry in self._header.items():
            begin, end = entry["data_offsets"]
            if self._start + end > self._bytes.size:
                raise InputError(f"{self.path} is cut short: {name} ends beyond the file; copy the file again")
            if end - begin != math.prod(entry["shape"]) * _BYTES.get(entry["dtype"], 1):
                raise InputError(f"{self.path} is damaged: {name} has the wrong size; copy the file again")


def open_weights(folder: Path) -> dict[str, TensorFile]:
    """Map every tensor name of `folder/*.safetensors`, masks apart, to the file that holds it.

    Raises:
        InputError: no weights there, or a file that cannot be read.
    """
    paths = sorted(path for path in folder.glob("*.safetensors") if path.name != MASKS)
    if not paths:
        raise InputError(f"{folder} holds no safetensors weights")
    files = [TensorFile(path) for path in paths]
    return {name: file for file in files for name in file}


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        text = stream.read(length) if 0 < length <= _MAX_HEADER else b""
    try:
        if len(text) < max(length, 1):
            raise ValueError("the header is cut short")
        header = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if not all({"dtype", "shape", "data_offsets"} <= entry.keys() for entry in entries.values()):
            raise ValueError("the header is incomplete")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is no readable safetensors file ({error}); copy the file again") from None
    return entries, 8 + length
