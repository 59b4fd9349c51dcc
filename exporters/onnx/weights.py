"""Finding weights in an ONNX graph: which initializer a MatMul, Gemm or Conv multiplies with, and over which axis.

Shapes: O out features, I in features. MatMul's right operand is [..., I, O], its left one [..., O, I]; Gemm's are the same,
turned with transB or transA; Conv's weight is [O, I, *kernel], ConvTranspose's [I, O, *kernel]. The packed weight of
MatMul24 and MatMulDense counts as [O, I], that of Unpack24 as [I, O]. Branches and loops are searched too: exporters put
whole decoders into an If.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from vlmc.exporters.onnx.evaluating import evaluate
from vlmc.exporters.onnx.kept import spread
from vlmc.runtime.errors import InputError, one_line, shortened
from vlmc.runtime.kernels.packing import Packed, ValueType, unpack

SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter lists the modules around a node
MATMUL24, MATMUL_DENSE = "MatMul24", "MatMulDense"
PACKED = (MATMUL24, MATMUL_DENSE)
"""The operators with packed weights."""
UNPACK24 = "Unpack24"
"""Makes the dense weight of one that is stored packed; its `perm` turns (I, O) into what the product reads."""
VALUES = ".values"
"""What the name of a packed weight's values ends in, after the name of the weight."""
_TYPES: dict[str, ValueType] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int8": "int8"}
"""The types of packed values, by NumPy's names."""
_THROUGH = {"Transpose", "Cast", "Identity", "DequantizeLinear", UNPACK24}


@dataclass(frozen=True)
class Weight:
    """An initializer that a node multiplies with, and the axis of it that the product sums over.

    `place` says which of the node's inputs it is. `zero_point` is the initializer of its zero point if it is quantised,
    along `channel_axis` if there are several.
    """

    initializer: str
    axis: int
    zero_point: str | None = None
    channel_axis: int = 1
    place: int = 1


@dataclass(frozen=True)
class Weights:
    """The weights of one graph. Those that `model` does not hold are read from `folder`, each when it is asked for.

    Raises:
        InputError: by what reads a weight, its file is missing, too short, or outside the folder.
    """

    model: onnx.ModelProto
    folder: Path | None = None

    @cached_property
    def initializers(self) -> Mapping[str, onnx.TensorProto]:
        """Every stored tensor by its name, constants included."""
        stored = {tensor.name: tensor for graph in graphs(self.model.graph) for tensor in graph.initializer}
        constants = (node for node in self.nodes if node.op_type == "Constant")
        return stored | {
            node.output[0]: attribute.t for node in constants for attribute in node.attribute if attribute.name == "value"
        }

    @cached_property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """All nodes, those of branches and loops too."""
        return [node for graph in graphs(self.model.graph) for node in graph.node]

    @cached_property
    def _producers(self) -> Mapping[str, onnx.NodeProto]:
        return {output: node for node in self.nodes for output in node.output}

    def __iter__(self) -> Iterator[tuple[onnx.NodeProto, Weight]]:
        """Yield every node that multiplies with a stored tensor, and that tensor, or one computed of such tensors alone."""
        for node in self.nodes:
            if node.op_type in PACKED:
                yield node, Weight(node.input[1], 1)
            for place, axis, zero_point in _operands(node):
                weight = self._trace(node.input[place], axis) or self._computed(node.input[place], axis)
                if weight is not None:
                    yield node, replace(weight, place=place, zero_point=zero_point or weight.zero_point)

    def of_layer(self, layer: str) -> Weight | None:
        """Return the weight of a module; None: it is not in the graph."""
        for node, weight in self:
            if layer in scopes(node) or weight.initializer.removesuffix(VALUES) == f"{layer}.weight":
                return weight
        return None

    def array(self, name: str) -> NDArray[np.generic]:
        """Return a stored tensor's values, unpacked where it is packed."""
        if name in self._packed:
            return unpack(self.packed(self._packed[name]))
        if name in self._kept:
            return spread(*(numpy_helper.to_array(self.tensor(one)) for one in self._kept[name].input))
        if name not in self.initializers:
            return self._evaluated[name]
        values: NDArray[np.generic] = numpy_helper.to_array(self.tensor(name))
        return values

    def tensor(self, name: str) -> onnx.TensorProto:
        """Return a stored tensor with its values."""
        found = self.initializers[name]
        if self.folder is None or not uses_external_data(found):
            return found
        loaded = onnx.TensorProto()
        loaded.CopyFrom(found)
        try:
            load_external_data_for_tensor(loaded, str(self.folder))
        except Exception as error:  # onnx's and the system's errors share no other base
            raise InputError(f"the values of {shortened(name)} cannot be read: {one_line(error)}") from None
        return loaded

    def packed(self, node: onnx.NodeProto) -> Packed:
        """Return the packed weight of a MatMul24 or MatMulDense.

        Raises:
            InputError: its values are of a type that is never packed.
        """
        sizes = [int(attribute(node, name, 0)) for name in ("out_features", "in_features")]
        places = [node.input[2] if node.op_type == MATMUL24 else "", *node.input[4 if node.op_type == MATMUL24 else 3 :]]
        values, (positions, *rest) = self._stored(node.input[1]), map(self._stored, places)
        assert values is not None
        kind = _TYPES.get(values.dtype.name)
        if kind is None:
            raise InputError(f"{node.input[1]} is {values.dtype.name}, which no packed weight is: export the model again")
        bits = values.view(np.uint16) if kind == "bf16" else values
        return Packed(kind, sizes[0], sizes[1], bits, positions, rest[0] if rest else None, attribute(node, "span", 0))

    def _stored(self, name: str) -> NDArray[np.generic] | None:
        return numpy_helper.to_array(self.tensor(name)) if name else None

    @cached_property
    def _packed(self) -> Mapping[str, onnx.NodeProto]:
        return {node.input[1]: node for node in self.nodes if node.op_type in PACKED}

    @cached_property
    def _kept(self) -> Mapping[str, onnx.NodeProto]:
        return {node.input[0]: node for node in self.nodes if node.op_type == UNPACK24}

    def _trace(self, name: str, axis: int) -> Weight | None:
        """Follow the operand back to the initializer, through nodes that only move or convert it."""
        zero_point, channel_axis = None, 1
        while name not in self.initializers:
            producer = self._producers.get(name)
            if producer is None or producer.op_type not in _THROUGH:
                return None
            if producer.op_type in {"Transpose", UNPACK24}:
                axis, channel_axis = _turned(producer, axis), _turned(producer, channel_axis)
            if producer.op_type == "DequantizeLinear":
                if attribute(producer, "block_size", 0):
                    return None  # a zero point for each block: the values themselves are computed
                zero_point = producer.input[2] if len(producer.input) > 2 else None
                channel_axis = int(attribute(producer, "axis", 1))
            name = producer.input[0]
        dims = len(self.initializers[name].dims)
        return Weight(name, axis % dims, zero_point, channel_axis % dims) if dims >= 2 else None

    def _computed(self, name: str, axis: int) -> Weight | None:
        """Return an operand that is computed of stored tensors alone; None: it depends on the graph's inputs."""
        if name in self.initializers or name not in self._producers:
            return None
        if name not in self._evaluated:
            values = evaluate(self.model, name, self._producers, self.initializers, self.tensor)
            if values is None:
                return None
            self._evaluated[name] = values
        dims = self._evaluated[name].ndim
        return Weight(name, axis % dims) if dims >= 2 else None

    @cached_property
    def _evaluated(self) -> dict[str, NDArray[np.generic]]:
        return {}


def scopes(node: onnx.NodeProto) -> list[str]:
    """Return the names of the modules around a node; empty if torch did not write the graph."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            return [str(name) for name in ast.literal_eval(entry.value)]
    return []


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph, and those of its branches and loops."""
    yield graph
    for node in graph.node:
        for held in node.attribute:
            for inside in (*([held.g] if held.HasField("g") else []), *held.graphs):
                yield from graphs(inside)


_PLACES = {"Conv": (1, 1, None), "ConvTranspose": (1, 0, None), "QLinearConv": (3, 1, 5), "QLinearMatMul": (3, -2, 5)}
"""For an operation: the place of its weight, the axis that it sums over, the place of the weight's zero point."""


def _operands(node: onnx.NodeProto) -> Iterator[tuple[int, int, str | None]]:
    """Yield the place of each operand that may be a weight, the axis that the product sums over, its zero point."""
    if node.op_type in {"MatMul", "Gemm", "FusedMatMul", "MatMulInteger"}:
        turned = [attribute(node, name, 0) for name in ("transA", "transB")]
        zero_points = [*node.input[2:4], "", ""] if node.op_type == "MatMulInteger" else ["", ""]
        yield 1, -1 if turned[1] else -2, zero_points[1] or None
        yield 0, -2 if turned[0] else -1, zero_points[0] or None
    elif node.op_type in _PLACES:
        place, axis, point = _PLACES[node.op_type]
        yield place, axis, node.input[point] if point is not None and len(node.input) > point else None


def _turned(transpose: onnx.NodeProto, axis: int) -> int:
    """Return which axis of a Transpose's input an axis of its output is; without `perm` all are reversed."""
    perm = attribute(transpose, "perm", None)
    return -1 - axis if perm is None else list(perm)[axis]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, the default where it has none of that name."""
    found = [onnx.helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name]
    return found[0] if found else default
