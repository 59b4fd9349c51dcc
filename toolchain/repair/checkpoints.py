"""Checkpoints of a training run: one folder with the run's identity and its latest state, each written in one step."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vlmc.runtime.artifact.writing import write_text
from vlmc.runtime.errors import InputError

State: TypeAlias = dict[str, Tensor]

_IDENTITY, _STATE = "identity.json", "state.safetensors"


class Checkpoints:
    """The checkpoints of one run; `identity` is all that decides its result, as JSON values.

    With `resume` a run of the same identity goes on; without, what the folder holds is dropped.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, resume: bool = False) -> None:
        self.folder, self.identity, self.resume = folder, dict(identity), resume

    def open(self) -> State | None:
        """Make the folder ready and return the latest state, None where there is none to go on from.

        Raises:
            InputError: the folder holds another run, or its state cannot be read.
        """
        if self.resume and (self.folder / _IDENTITY).is_file():
            self._check_identity()
            return self._load() if (self.folder / _STATE).is_file() else None
        self.remove()
        self.folder.mkdir(parents=True)
        write_text(self.folder / _IDENTITY, json.dumps(self.identity, indent=2, sort_keys=True) + "\n")
        return None

    def save(self, state: State) -> None:
        """Replace the latest state in one step."""
        write_tensors(self.folder / _STATE, state)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_identity(self) -> None:
        try:
            found = dict(json.loads((self.folder / _IDENTITY).read_text(encoding="utf-8")))
        except ValueError:
            found = {}
        for key in sorted(found.keys() | self.identity.keys()):
            was, now = found.get(key), self.identity.get(key)
            if was != now:
                raise InputError(
                    f"{self.folder} holds another run: its {key} was {was!r}, now it is {now!r}; "
                    "repeat that command, or leave --resume out to start anew"
                )

    def _load(self) -> State:
        try:
            return load((self.folder / _STATE).read_bytes())
        except SafetensorError as error:
            raise InputError(f"{self.folder / _STATE} is damaged ({error}): leave --resume out to start anew") from None


def write_tensors(path: Path, tensors: State, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file in one step: to a sibling first, flushed to the disk, then renamed."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as stream:
        stream.write(save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=metadata))
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
