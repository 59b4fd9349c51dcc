"""GraphSpec: what an exporter is given. It says how to trace a module, and nothing about the model family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vlmc.runtime.kernels.rounding import Rounded
from vlmc.runtime.sparsity import SparsityPattern

OPSET = 18
"""The version of ONNX's operators that every backend takes."""


@dataclass(frozen=True)
class Axis:
    """A dynamic dimension: its name, and the sizes that an engine must support; it is tuned for `optimum`."""

    name: str
    minimum: int
    optimum: int
    maximum: int


@dataclass(frozen=True)
class GraphSpec:
    """A module to export as one graph.

    `inputs` are example tensors in the order of the module's forward arguments, by the graph's input names, with dynamic
    dimensions of at least 2; `axes` gives these as input -> dimension -> Axis. `cases` are further inputs of other sizes:
    the graph's outputs must be the module's. `sparse` promises patterns for Linear layers, by their names inside `module`:
    the exporter checks them on the graph's own weights. `keep_fp32` are layers whose weights stay in float32 in a graph in
    fp16, because their products overflow there. `rounded` are weights of promised layers in whole numbers, for a graph whose
    weights are packed in int8: they have zeros where the module's have; weights that are not named are rounded to nearest.
    `opset` is the version of ONNX's operators. The module may be a part of a streamed model, which holds no weights:
    accelerate's hooks read them.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, Axis]] = field(default_factory=dict)
    cases: Sequence[Mapping[str, Tensor]] = ()
    sparse: Mapping[str, SparsityPattern] = field(default_factory=dict)
    keep_fp32: frozenset[str] = frozenset()
    rounded: Mapping[str, Rounded] = field(default_factory=dict)
    opset: int = OPSET

    @property
    def streamed(self) -> bool:
        """Whether the weights are read from files whenever they are needed, because they do not fit into memory."""
        return any(parameter.is_meta for parameter in self.module.parameters())

    def weight(self, name: str) -> Tensor:
        """Return a parameter of the module, by its name inside."""
        parameter = self.module.get_parameter(name)
        if not parameter.is_meta:
            return parameter.detach()
        owner, _, own = name.rpartition(".")
        hook: Any = self.module.get_submodule(owner)._hf_hook
        read: Tensor = hook.weights_map[own]
        return read
