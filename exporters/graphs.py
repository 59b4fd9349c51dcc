"""GraphSpec: what an exporter is given. It says how to trace a module, and nothing of the model's family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from vlmc.runtime.sparsity import SparsityPattern


@dataclass(frozen=True)
class Axis:
    """A dynamic dimension: its name, and the sizes that an engine must serve (`optimum` is tuned for)."""

    name: str
    minimum: int
    optimum: int
    maximum: int


@dataclass(frozen=True)
class GraphSpec:
    """A module to export as one graph.

    `inputs` are example tensors in the order of the module's forward arguments, keyed by the graph's input names, with
    dynamic dimensions of at least 2; `axes` gives those as input -> dimension -> Axis. `cases` are further real inputs,
    of other sizes: the graph must answer them as the module does. `sparse` promises a pattern for Linear layers, by their
    names inside `module`: the exporter proves it on the graph's own weights.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, Axis]] = field(default_factory=dict)
    cases: Sequence[Mapping[str, Tensor]] = ()
    sparse: Mapping[str, SparsityPattern] = field(default_factory=dict)
