"""Spoiling safetensors files: their header as JSON, or their values so that zeros stay zeros and masks stay true."""

import json
from random import Random
from typing import Any

from tests.fuzz.spoiling import Spoiled, edit, spoil_bytes, value

_LENGTH = 8  # bytes that say how long the header is
_HALVES = {
    "nan": b"\x00\x7e",
    "infinity": b"\x00\x7c",
    "minus zero": b"\x00\x80",
    "zero": b"\x00\x00",
    "the greatest": b"\xff\x7b",
}
_WIDTH = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}


def spoil_tensors(random: Random, content: bytes) -> Spoiled:
    """Spoil a safetensors file of half precision in one place."""
    header = read_header(content)
    if header is None or random.random() < 0.2:
        return spoil_bytes(random, content)
    return random.choice([_edit_header, _move_tensor, _lie_of_length, _set_values, _set_values, _negate])(
        random, content, header
    )


def read_header(content: bytes) -> dict[str, Any] | None:
    """Return the header; None where there is none."""
    try:
        found = json.loads(content[_LENGTH : _LENGTH + int.from_bytes(content[:_LENGTH], "little")])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def join(header: Any, values: bytes) -> bytes:
    """Return the file of a header, which may be anything, and values."""
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(_LENGTH, "little") + text + values


def values_of(content: bytes) -> bytes:
    """Return what stands behind the header."""
    return content[_LENGTH + int.from_bytes(content[:_LENGTH], "little") :]


def set_tensor(content: bytes, name: str, half: bytes) -> bytes:
    """Return the file with every value of a tensor of half precision that is not zero replaced."""
    header = read_header(content)
    assert header is not None
    start, end = header[name]["data_offsets"]
    values = bytearray(values_of(content))
    for place in range(start, end, 2):
        if values[place : place + 2] not in (b"\x00\x00", b"\x00\x80"):
            values[place : place + 2] = half
    return content[: len(content) - len(values)] + bytes(values)


def _edit_header(random: Random, content: bytes, header: dict[str, Any]) -> Spoiled:
    changed, what = edit(random, header)
    return join(changed, values_of(content)), f"header: {what}"


def _move_tensor(random: Random, content: bytes, header: dict[str, Any]) -> Spoiled:
    name = random.choice([name for name in header if name != "__metadata__"])
    key = random.choice(["dtype", "shape", "data_offsets"])
    usual = {
        "dtype": ["F64", "I8", "BOOL", "F8_E4M3", "U64", "nothing", ""],
        "shape": [[], [0], [2**40, 2**40], [-1], [1], ["a"]],
        "data_offsets": [[0, 0], [0, 2**63], [5, 1], [-2, 0], [0], []],
    }
    header[name][key] = random.choice([*usual[key], value(random)])
    return join(header, values_of(content)), f"header: {key} of {name}"


def _lie_of_length(random: Random, content: bytes, header: dict[str, Any]) -> Spoiled:
    length = random.choice([0, 1, 2**63, 2**64 - 1, len(content), len(content) + 1, 100_000_001])
    return length.to_bytes(_LENGTH, "little") + content[_LENGTH:], f"a header of {length} bytes"


def _set_values(random: Random, content: bytes, header: dict[str, Any]) -> Spoiled:
    names = [name for name, entry in header.items() if isinstance(entry, dict) and entry.get("dtype") == "F16"]
    if not names:
        return spoil_bytes(random, content)
    name, (what, half) = random.choice(names), random.choice(list(_HALVES.items()))
    return set_tensor(content, name, half), f"{what} in all that is kept of {name}"


def _negate(random: Random, content: bytes, header: dict[str, Any]) -> Spoiled:
    """Flip the sign of a tensor's values that are not zero."""
    names = [name for name, entry in header.items() if isinstance(entry, dict) and _WIDTH.get(entry.get("dtype"))]
    if not names:
        return spoil_bytes(random, content)
    name = random.choice(names)
    width, (start, end) = _WIDTH[header[name]["dtype"]], header[name]["data_offsets"]
    values = bytearray(values_of(content))
    for place in range(start, end, width):
        if any(values[place : place + width]):
            values[place + width - 1] ^= 0x80
    return content[: len(content) - len(values)] + bytes(values), f"signs of {name} flipped"
