"""A module that computes with the weights that its graph holds, so that what rounding them changes is no error of the graph.

Shapes: I inputs, O outputs of a layer; V rows, D columns of a table.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx.tables import is_narrow, table_of
from vlmc.exporters.onnx.weights import PACKED, VALUES, Weights, scopes
from vlmc.runtime.kernels.packing import Array, unpack

Read = Callable[[], Array]


@dataclass(frozen=True)
class HeldWeight:
    """A weight as the graph holds it: what reads it, (O, I) or (V, D), and whether the parameter is turned, (I, O)."""

    read: Read
    turned: bool = False

    def of(self, parameter: Array) -> Array:
        """Return a parameter as the graph holds it, or the other way round."""
        return parameter.T if self.turned else parameter

    def array(self) -> Array:
        """Return it in the parameter's shape."""
        return self.of(self.read())


@contextmanager
def as_stored(spec: GraphSpec, path: Path) -> Iterator[None]:
    """Inside `with`, the module's layers compute with the weights that are packed in its graph, or narrow tables there.

    A streamed module's weights are read each time that they are needed, those of others once.
    """
    weights = Weights(onnx.load(path, load_external_data=False), path.parent)
    with ExitStack() as stack:
        for name, weight in held_weights(spec.module, weights).items():
            layer, _, own = name.rpartition(".")
            owner = spec.module.get_submodule(layer)
            streamed = getattr(owner, own).is_meta
            stack.enter_context((_streams if streamed else _holds)(owner, own, weight.array))
        yield


def held_weights(module: nn.Module, weights: Weights) -> dict[str, HeldWeight]:
    """Return the graph's weights that may be rounded, by the names of their parameters."""
    nodes = {scope: node for node in weights.nodes if node.op_type in (*PACKED, "Gather") for scope in scopes(node)}
    found: dict[str, HeldWeight] = {}
    for name, part in module.named_modules():
        node = nodes.get(name)
        if isinstance(part, nn.Linear) and node is not None and node.op_type in PACKED:
            found[f"{name}.weight"] = HeldWeight(partial(_unpacked, weights, node))
        elif isinstance(part, nn.Embedding) and node is not None and is_narrow(weights, node):
            found[f"{name}.weight"] = HeldWeight(partial(table_of, weights, node))
    others = {name for name, _ in module.named_parameters()} - found.keys()
    for node in weights.nodes:  # a parameter that a module multiplies with by itself, (I, O)
        if node.op_type in PACKED and (name := node.input[1].removesuffix(VALUES)) in others:
            found[name] = HeldWeight(partial(_unpacked, weights, node), turned=True)
    return found


def _unpacked(weights: Weights, node: onnx.NodeProto) -> Array:
    return unpack(weights.packed(node))


@contextmanager
def _holds(owner: nn.Module, own: str, read: Read) -> Iterator[None]:
    """Let a module have another parameter while it runs."""
    parameter, kept = owner.get_parameter(own), cache(lambda: torch.from_numpy(read()))
    before = parameter.data

    def begin(*_: Any) -> None:
        parameter.data = kept().to(before)

    def end(*_: Any) -> None:
        parameter.data = before

    with owner.register_forward_pre_hook(begin), owner.register_forward_hook(end, always_call=True):
        yield


@contextmanager
def _streams(owner: nn.Module, own: str, read: Read) -> Iterator[None]:
    """Let a module whose weights accelerate reads get another parameter."""
    hook: Any = owner._hf_hook
    before = hook.weights_map
    hook.weights_map = _Instead(before, own, read)
    try:
        yield
    finally:
        hook.weights_map = before


class _Instead(Mapping[str, Tensor]):
    """A module's weights, one of them another."""

    def __init__(self, others: Mapping[str, Tensor], own: str, read: Read) -> None:
        self._others, self._own, self._read = others, own, read

    def __getitem__(self, name: str) -> Tensor:
        found = self._others[name]
        return torch.from_numpy(self._read()).to(found) if name == self._own else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._others)

    def __len__(self) -> int:
        return len(self._others)
