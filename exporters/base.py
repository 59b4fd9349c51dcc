"""Exporter: what every backend does with graph descriptions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vlmc.exporters.backend import Backend
from vlmc.exporters.graphs import GraphSpec

Precision = Literal["fp32", "fp16"]
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest difference from torch in float32, as a fraction of the output's largest absolute value."""

Progress = Callable[[str], None]
"""Is called with the name of each finished graph."""


@dataclass(frozen=True)
class Options:
    """What the user may choose: the weights' type, and the GPUs to build for; (): the backend's default."""

    precision: Precision = "fp32"
    gpus: tuple[str, ...] = ()


class Exporter(ABC):
    """A backend, such as ONNX; stateless."""

    backend: ClassVar[Backend]

    @abstractmethod
    def requires(self) -> None:
        """Raise EnvironmentLacks, with the command that installs it, if a package is missing."""

    @abstractmethod
    def check(self, options: Options) -> None:
        """Raise InputError for an option that the backend cannot take, before any work is done."""

    @abstractmethod
    def export(self, specs: Sequence[GraphSpec], folder: Path, options: Options, progress: Progress) -> dict[str, Any]:
        """Write every graph into `folder`, check it, and return a report of JSON values.

        Raises:
            InputError: the backend cannot take an option.
            CheckFailed: a graph's outputs differ from its module's, or it lacks the promised sparsity.
        """
