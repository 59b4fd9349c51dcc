"""A module that computes with the weights that its graph holds, so that what rounding them changes is no error of the graph.

Shapes: I inputs, O outputs.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx.tables import is_narrow, table_of
from vlmc.exporters.onnx.weights import PACKED, Weights, scopes
from vlmc.runtime.kernels.packing import Array, unpack

Computed = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]
"""Takes the place of a layer's output, given the layer and its inputs."""


@contextmanager
def as_stored(spec: GraphSpec, path: Path) -> Iterator[None]:
    """Inside `with`, the module's Linear and Embedding layers compute with the weights that its graph holds, where rounded.

    A streamed module's weights are read each time that they are needed, those of others once.
    """
    weights = Weights(onnx.load(path, load_external_data=False), path.parent)
    nodes = {scope: node for node in weights.nodes if node.op_type in (*PACKED, "Gather") for scope in scopes(node)}
    with ExitStack() as stack:
        for name, module in spec.module.named_modules():
            node = nodes.get(name)
            if isinstance(module, nn.Linear) and node is not None and node.op_type in PACKED:
                stack.enter_context(module.register_forward_hook(_product(spec, name, weights, node)))
            elif isinstance(module, nn.Embedding) and node is not None and is_narrow(weights, node):
                stack.enter_context(module.register_forward_hook(_rows(spec, name, weights, node)))
        yield


def _product(spec: GraphSpec, name: str, weights: Weights, node: onnx.NodeProto) -> Computed:
    """Return the product with a packed weight."""
    weight = _kept(spec, name, lambda: unpack(weights.packed(node)))

    def computed(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        [x] = given
        bias_O = None if module.bias is None else spec.weight(f"{name}.bias").to(x)
        return functional.linear(x, weight().to(x), bias_O)

    return computed


def _rows(spec: GraphSpec, name: str, weights: Weights, node: onnx.NodeProto) -> Computed:
    """Return the rows of a table."""
    table = _kept(spec, name, lambda: table_of(weights, node))

    def computed(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        [ids] = given
        return table()[ids].to(output)

    return computed


def _kept(spec: GraphSpec, name: str, read: Callable[[], Array]) -> Callable[[], Tensor]:
    """Return what reads a layer's weight from the graph: once, unless the module is streamed."""

    def found() -> Tensor:
        return torch.from_numpy(read())

    return found if spec.module.get_parameter(f"{name}.weight").is_meta else cache(found)
