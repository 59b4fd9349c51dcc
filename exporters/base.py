"""Exporter: what every backend does with graph descriptions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from vlmc.exporters.backend import Backend
from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.kernels.columns import SPAN
from vlmc.runtime.kernels.packing import ValueType

Precision = Literal["fp32", "fp16", "bf16"]
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Largest difference from torch in float32, as a fraction of the output's largest absolute value."""
Activations = Literal["fp32", "bf16", "int8"]
TIES: dict[ValueType, float] = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 3e-2, "int8": 1e-1}
"""How far rounding may move logits, as a fraction of the largest: answers may differ where two are so close."""


class Progress(Protocol):
    """Is told how far an exporter is."""

    def advance(self, note: str) -> None:
        """Hear that a graph is finished, by its name."""

    def say(self, note: str) -> None:
        """Hear what is being done, such as a step of a long build."""


@dataclass(frozen=True)
class Options:
    """What the user may choose: the weights' type, and the GPUs to build for; (): the backend's default.

    `cpu_sparse` is the type in which 2:4 weights are packed for the CPU kernels; None: they are not. `cpu_activations` is
    the type to which the kernels may round activations, `span` how many columns share a scale of int8. `packed` stores 2:4
    weights as their kept values and places. `require_sparse` is the share of the eligible layers that an engine must run
    sparse; None: no matter. `workspace` is how many bytes of GPU memory a builder may take to try a layer; None: all.
    """

    precision: Precision = "fp32"
    gpus: tuple[str, ...] = ()
    cpu_sparse: ValueType | None = None
    cpu_activations: Activations = "fp32"
    span: int = SPAN
    packed: bool = False
    require_sparse: float | None = None
    workspace: int | None = None

    @property
    def tolerance(self) -> float:
        """The largest difference from torch that is allowed, with weights as they are stored and exact activations."""
        return TOLERANCE[self.precision]

    @property
    def rounds(self) -> bool:
        """Whether weights are packed in a type that rounds them."""
        return self.cpu_sparse not in (None, "fp32")

    @property
    def tie(self) -> float:
        """How close two logits are, as a fraction of the largest, if either may be taken."""
        return self.tolerance if self.cpu_sparse is None else TIES[self.cpu_sparse]

    @property
    def plain(self) -> "Options":
        """The same with weights that are dense, in the graph's own type, and nothing promised of an engine."""
        return replace(self, cpu_sparse=None, cpu_activations="fp32", packed=False, require_sparse=None)


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

    def as_exported(self, specs: Sequence[GraphSpec], folder: Path, options: Options) -> AbstractContextManager[None]:
        """Return a context in which modules compute with the weights that their graphs in `folder` hold, where rounded."""
        return nullcontext()
