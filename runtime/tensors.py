"""Reading safetensors as raw bits, without torch: every dtype, memory-mapped, and truncation is noticed.

numpy has no bfloat16 or float8; whether a weight is zero can be read from its bits, so this module returns bits.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.errors import InputError, shortened
from vlmc.runtime.json_text import parse_json, read_json

MASKS = "masks.safetensors"
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_MOST, _DIMENSIONS = 1 << 48, 32  # of a size, and of sizes
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
            names = {str(name) for name in read_json(index)["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{index} is not a readable index of weights; copy the file again") from None
        paths = [folder / name for name in sorted(names)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"{folder} lacks {missing[0]}, which its index names; copy the file again")
    if not paths:
        raise InputError(f"{folder} holds no safetensors weights{_pickled(folder)}")
    return paths


def _pickled(folder: Path) -> str:
    """Return what to do about weights that are pickles: code that runs when it is read."""
    found = next((path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in sorted(folder.glob(pattern))), None)
    if found is None:
        return ""
    return (
        f", only {found}, a pickle, which can run code and is never read: if you trust it, convert it with transformers, "
        "from_pretrained(FOLDER).save_pretrained(OTHER), which writes safetensors"
    )


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
        header = parse_json(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        for name, entry in entries.items():
            if not _is_entry(entry):
                raise ValueError(f"the header says nothing valid of {shortened(name)}")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); copy the file again") from None
    return entries, 8 + length


def _is_entry(entry: Any) -> bool:
    """Whether a header's entry has the types that it must have."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(offsets):
        return False
    return len(shape) <= _DIMENSIONS and len(offsets) == 2 and offsets[0] <= offsets[1]


def _are_sizes(found: Any) -> TypeGuard[list[int]]:
    return isinstance(found, list) and all(type(number) is int and 0 <= number < _MOST for number in found)
