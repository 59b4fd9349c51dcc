"""Reading safetensors as raw bits, without torch: every dtype, memory-mapped, and truncation is noticed.

numpy has no bfloat16 or float8; whether a weight is zero can be read from its bits, so this module returns bits.
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
        InputError: the file is not a safetensors file, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header, self._start = _read_header(path)
        self._check_length()

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Map the tensor's own bytes; the memory is freed with the array."""
        entry = self._header[name]
        kind, shape = np.dtype(f"<u{_BYTES.get(entry['dtype'], 1)}"), tuple(entry["shape"])
        if math.prod(shape) == 0:
            return np.empty(shape, kind)
        return np.memmap(self.path, kind, "r", self.span(name)[0], shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the tensor's shape."""
        return tuple(self._header[name]["shape"])

    def span(self, name: str) -> tuple[int, int]:
        """Return where in the file the tensor's bytes begin and end."""
        begin, end = self._header[name]["data_offsets"]
        return self._start + begin, self._start + end

    def dtype(self, name: str) -> str:
        """Return the tensor's type in safetensors' spelling, such as `F16` or `BF16`."""
        return str(self._header[name]["dtype"])

    def _check_length(self) -> None:
        size = self.path.stat().st_size
        for name, entry in self._header.items():
            begin, end = entry["data_offsets"]
            if self._start + end > size:
                raise InputError(f"{self.path} is cut short: {name} ends beyond the file; copy the file again")
            if end - begin != math.prod(entry["shape"]) * _BYTES.get(entry["dtype"], 1):
                raise InputError(f"{self.path} is damaged: {name} has the wrong size; copy the file again")


def write_bytes(path: Path, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write arrays of bytes as a safetensors file, sorted by name; each is read when it is written."""
    header, end = {}, 0
    for name in sorted(arrays):
        begin, end = end, end + arrays[name].size
        header[name] = {"dtype": "U8", "shape": list(arrays[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # safetensors aligns its data to eight bytes
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in header:
            stream.write(np.ascontiguousarray(arrays[name]).tobytes())


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files with a model's weights: those that transformers reads.

    They are `model.safetensors`, where there is one, else those that the index names, else all.

    Raises:
        InputError: there are no weights, or the index cannot be read or names a missing file.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        paths = [whole]
    elif not index.is_file():
        paths = sorted(path for path in folder.glob("*.safetensors") if path.name != MASKS)
    else:
        try:
            names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (ValueError, KeyError, AttributeError):
            raise InputError(f"{index} is not a readable index of weights; copy the file again") from None
        paths = [folder / name for name in sorted(names)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"{folder} lacks {missing[0]}, which its index names; copy the file again")
    if not paths:
        raise InputError(f"{folder} holds no safetensors weights")
    return paths


def open_weights(folder: Path) -> dict[str, TensorFile]:
    """Map the name of every weight of a model to the file that holds it.

    Raises:
        InputError: there are no weights, a file cannot be read, or a weight is in two files.
    """
    found: dict[str, TensorFile] = {}
    for file in (TensorFile(path) for path in weight_files(folder)):
        for name in file:
            if name in found:
                raise InputError(f"{folder} has {name} twice, in {found[name].path.name} and {file.path.name}: remove one")
            found[name] = file
    return found


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
        raise InputError(f"{path} is not a readable safetensors file ({error}); copy the file again") from None
    return entries, 8 + length
