"""Checkpoints of a training run: its latest state, in the folder of the run, replaced in one rename."""

from pathlib import Path
from typing import TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.saving import write_tensors

State: TypeAlias = dict[str, Tensor]


class Checkpoints:
    """The checkpoints of one run, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.safetensors"

    def load(self) -> State | None:
        """Return the latest state, None where there is none.

        Raises:
            InputError: it cannot be read.
        """
        if not self.path.is_file():
            return None
        try:
            return load(self.path.read_bytes())
        except SafetensorError as error:
            raise InputError(f"{self.path} is damaged ({error}): leave --resume out to start over") from None

    def save(self, state: State) -> None:
        """Replace the latest state in one rename."""
        write_tensors(self.path, state)
