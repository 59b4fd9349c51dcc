"""Checkpoints of a training run: a folder with the run's identity and its latest state, each written in one rename."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.saving import write_tensors
from vlmc.toolchain.stages.run_folder import RunFolder

State: TypeAlias = dict[str, Tensor]

_STATE = "state.safetensors"


class Checkpoints:
    """The checkpoints of one run; `identity` is all that decides its result, as JSON values.

    With `resume` a run of the same identity is resumed; without, the content of the folder is dropped.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, resume: bool = False) -> None:
        self.folder = folder
        self._run = RunFolder(folder, identity, resume=resume)

    def open(self) -> State | None:
        """Make the folder ready and return the latest state, None where there is none.

        Raises:
            InputError: the folder holds another run, or its state cannot be read.
        """
        self._run.open()
        return self._load() if (self.folder / _STATE).is_file() else None

    def save(self, state: State) -> None:
        """Replace the latest state in one rename."""
        write_tensors(self.folder / _STATE, state)

    def _load(self) -> State:
        try:
            return load((self.folder / _STATE).read_bytes())
        except SafetensorError as error:
            raise InputError(f"{self.folder / _STATE} is damaged ({error}): leave --resume out to start anew") from None
