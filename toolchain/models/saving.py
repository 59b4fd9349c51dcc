"""Writing models: a copy of a model's files with changed weights, unchanged files as links, small files in one step."""

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.runtime.artifact.texts import partial_of
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.tensors import open_weights, weight_files
from vlmc.toolchain.models.streaming.reading import FLOATS

_KEEP = {".json", ".txt", ".jinja", ".model"}  # configuration, tokenizer and processor files
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SKIP = {"manifest.json", _INDEX}


def save_model(source: Path, folder: Path, changed: Iterable[tuple[str, Tensor]], *, code: bool = False) -> None:
    """Copy a model's files, then overwrite the changed weights, given by tensor name and read one at a time.

    `code`: the model's own Python code is trusted and copied too.

    Raises:
        CheckFailed: a changed weight has another shape or type than the stored one.
    """
    copy_model(source, folder, code=code)
    write_weights(folder, changed)


def copy_model(source: Path, folder: Path, *, code: bool = False) -> None:
    """Copy a model's files, with its own `code` if that is trusted."""
    paths = weight_files(source)
    for path in paths:
        shutil.copyfile(path, folder / path.name)
    if (source / _INDEX).is_file() and [path.name for path in paths] != [_WHOLE]:
        shutil.copyfile(source / _INDEX, folder / _INDEX)
    copy_companions(source, folder, _KEEP | {".py"} if code else _KEEP)


def write_weights(folder: Path, changed: Iterable[tuple[str, Tensor]]) -> None:
    """Overwrite the changed weights of a model, given by tensor name and read one at a time.

    Raises:
        CheckFailed: a changed weight has another shape or type than the stored one.
    """
    files = open_weights(folder)
    for name, tensor in changed:
        begin, end = files[name].span(name)
        kind, shape = files[name].dtype(name), files[name].shape(name)
        if FLOATS.get(kind) != tensor.dtype or tuple(tensor.shape) != shape:
            raise CheckFailed(
                f"{name} is {tuple(tensor.shape)} {tensor.dtype}, but {shape} {kind} in "
                f"{files[name].path}: nothing is written"
            )
        raw = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
        assert raw.nbytes == end - begin
        with files[name].path.open("r+b") as stream:
            stream.seek(begin)
            stream.write(raw.data)


def copy_companions(source: Path, folder: Path, suffixes: Collection[str] = _KEEP) -> None:
    """Copy all files of a model except its weights, by their suffixes; second tokenizers are in folders of their own."""
    for place in (source, *sorted(path.parent for path in source.glob("*/tokenizer_config.json"))):
        target = folder / place.relative_to(source)
        target.mkdir(exist_ok=True)
        for path in sorted(place.iterdir()):
            if path.is_file() and path.suffix in suffixes and path.name not in _SKIP:
                shutil.copyfile(path, target / path.name)


def carry(source: Path, target: Path, paths: Iterable[str]) -> None:
    """Put unchanged files at the same relative paths of `target`, as hard links, or as copies where links fail."""
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / path, target / path)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source / path, target / path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically: to a sibling first, flushed to disk, then renamed."""
    partial = partial_of(path)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata=metadata)
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.replace(path)
