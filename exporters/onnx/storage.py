"""2:4 weights in an ONNX file as their two kept values and 2-bit places: 9/16 of the bytes at 16 bits, and no bit is lost.

The node vlmc::Unpack24 makes the dense weight of them. Its function of standard operators lies in the file and needs
nothing of the graph's inputs: a runtime that folds constants, as ONNX Runtime does, computes it once, on load.
Shapes: I in features, O out features, G groups of 4 of I, B bytes of two groups each.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from vlmc.exporters.onnx.function import DOMAIN, VERSION, Body
from vlmc.exporters.onnx.kept import keep, spread
from vlmc.exporters.onnx.pages import Pages
from vlmc.exporters.onnx.tracing import EXTERNAL_ABOVE
from vlmc.exporters.onnx.weights import UNPACK24, VALUES, Weight, Weights, attribute
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.sparsity import SparsityPattern

POSITIONS = ".positions"
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_TWO_FOUR = SparsityPattern.parse("2:4")


@dataclass(frozen=True)
class Stored:
    """How many weights are stored as values and places, the bytes that they take, and took dense in the same type."""

    weights: int
    packed_bytes: int
    dense_bytes: int


def keep_packed(path: Path, promised: Mapping[str, SparsityPattern]) -> Stored:
    """Store the promised 2:4 weights of a file as values and places, in place; return what that saved.

    Raises:
        CheckFailed: a weight is not 2:4, or would not come back bit for bit.
    """
    model = onnx.load(path, load_external_data=False)
    weights, graph, pages = Weights(model, path.parent), model.graph, Pages(path, beside=_size(path) > EXTERNAL_ABOVE)
    found = [weights.of_layer(layer) for layer, pattern in promised.items() if pattern == _TWO_FOUR]
    chosen = {weight.initializer: weight for weight in found if weight is not None and _fits(weight, weights)}
    nodes, new, packed_bytes, dense_bytes = list[onnx.NodeProto](), list[TensorProto](), 0, 0
    for name, weight in chosen.items():
        dense = weights.array(name)
        node, tensors = _pack(name, dense, weight.axis, path)
        nodes.append(node)
        new += [pages.put(tensor) for tensor in tensors]
        packed_bytes += sum(len(tensor.raw_data) for tensor in tensors)
        dense_bytes += dense.nbytes
    _drop(graph, chosen)
    graph.initializer.extend(new)
    if nodes:
        _put_first(graph, nodes)
        model.functions.append(_function(next(entry.version for entry in model.opset_import if entry.domain == "")))
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    pages.finish(model, weights, {tensor.name for tensor in new})
    return Stored(len(nodes), packed_bytes, dense_bytes)


def unpack_file(path: Path, target: Path) -> int:
    """Write a file to `target` with its packed weights dense, as they were before; return how many there were.

    Raises:
        InputError: there is no packed weight in the file, or one is damaged.
    """
    model = onnx.load(path, load_external_data=False)
    weights, graph = Weights(model, path.parent), model.graph
    nodes = [node for node in graph.node if node.op_type == UNPACK24]
    if not nodes:
        raise InputError(f"{path} has no packed weights: it was not exported with --packed, or is unpacked already")
    stored = {tensor.name for tensor in graph.initializer}
    pages, new = Pages(target, beside=2 * _size(path) > EXTERNAL_ABOVE), list[TensorProto]()  # dense they are 16/9 as large
    for node in nodes:
        if not set(node.input) <= stored:
            raise InputError(f"{path} is damaged: it lacks the packed weight of {node.output[0]}")
        weight_IO = spread(*(numpy_helper.to_array(weights.tensor(name)) for name in node.input))
        dense = np.ascontiguousarray(weight_IO.transpose(attribute(node, "perm", [0, 1])))
        new.append(pages.put(numpy_helper.from_array(dense, node.output[0])))
    graph.initializer.extend(new)
    _drop(graph, {name for node in nodes for name in node.input})
    kept = [node for node in graph.node if node.op_type != UNPACK24]
    del graph.node[:]
    graph.node.extend(kept)
    for entries in (model.functions, model.opset_import):
        others = [entry for entry in entries if entry.domain != DOMAIN]
        del entries[:]
        entries.extend(others)
    pages.finish(model, weights, {tensor.name for tensor in new})
    return len(nodes)


def _size(path: Path) -> int:
    """Return the bytes of a file and of what lies beside it."""
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.data")) if file.exists())


def _fits(weight: Weight, weights: Weights) -> bool:
    """Whether a weight is stored as a matrix of floats of its own."""
    tensor = weights.initializers.get(weight.initializer)
    stored = {one.name for one in weights.model.graph.initializer}
    return tensor is not None and tensor.name in stored and len(tensor.dims) == 2 and tensor.data_type in _FLOATS


def _pack(name: str, dense: NDArray[np.generic], axis: int, path: Path) -> tuple[onnx.NodeProto, list[TensorProto]]:
    """Return the node that makes a weight, and the tensors that it makes it of."""
    perm = [0, 1] if axis == 0 else [1, 0]
    weight_IO = np.ascontiguousarray(dense.transpose(perm))
    try:
        values, positions = keep(weight_IO)
    except InputError as error:
        raise CheckFailed(f"{path.name}: {name} cannot be packed: {error}") from None
    if spread(values, positions).tobytes() != weight_IO.tobytes():
        raise CheckFailed(f"{path.name}: {name} does not come back bit for bit when it is packed")
    tensors = [numpy_helper.from_array(values, name + VALUES), numpy_helper.from_array(positions, name + POSITIONS)]
    inputs = [tensor.name for tensor in tensors]
    return helper.make_node(UNPACK24, inputs, [name], f"{name}.unpack", domain=DOMAIN, perm=perm), tensors


def _drop(graph: onnx.GraphProto, names: Collection[str]) -> None:
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _put_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])


def _function(opset: int) -> onnx.FunctionProto:
    """Return Unpack24 (values, positions) -> weight in standard operators, on rows of O values, which vectors compute."""
    body = Body()
    nibbles_GO = _nibbles(body)
    places = [_place(body, nibbles_GO, shift) for shift in (0, 2)]
    wide_2GO = body.add("Cast", "values", to=TensorProto.FLOAT)  # exact; ONNX Runtime has no Where of 16 bits
    values = [body.add("Gather", wide_2GO, body.constant(number, np.int64), axis=0) for number in (0, 1)]
    rows = [body.add("Unsqueeze", _row(body, place, places, values), body.constant([1], np.int64)) for place in range(4)]
    groups_G4O = body.add("Concat", *rows, axis=1)
    sizes = body.add("Concat", body.constant([-1], np.int64), body.add("Shape", "positions", start=1, end=2), axis=0)
    weight_IO = body.add("CastLike", body.add("Reshape", groups_G4O, sizes), "values")
    turn = helper.make_node("Transpose", [weight_IO], ["weight"])
    turn.attribute.append(AttributeProto(name="perm", ref_attr_name="perm", type=AttributeProto.INTS))
    nodes, opsets = [*body.nodes, turn], [helper.make_opsetid("", opset)]
    return helper.make_function(DOMAIN, UNPACK24, ["values", "positions"], ["weight"], nodes, opsets, ["perm"])


def _nibbles(body: Body) -> str:
    """Append what gives each group (G, O) its four bits."""
    low = body.add("BitwiseAnd", "positions", body.constant(15, np.uint8))
    high = body.add("BitShift", "positions", body.constant(4, np.uint8), direction="RIGHT")
    one = body.constant([1], np.int64)
    pairs_B2O = body.add("Concat", body.add("Unsqueeze", low, one), body.add("Unsqueeze", high, one), axis=1)
    sizes = body.add("Concat", body.constant([-1], np.int64), body.add("Shape", "positions", start=1, end=2), axis=0)
    groups = body.add("Shape", "values", start=1, end=2)
    return body.add("Slice", body.add("Reshape", pairs_B2O, sizes), body.constant([0], np.int64), groups)


def _place(body: Body, nibbles_GO: str, shift: int) -> str:
    """Append what gives the place of a kept value, 0 to 3, as int32: ONNX Runtime compares no uint8."""
    shifted = body.add("BitShift", nibbles_GO, body.constant(shift, np.uint8), direction="RIGHT")
    return body.add("Cast", body.add("BitwiseAnd", shifted, body.constant(3, np.uint8)), to=TensorProto.INT32)


def _row(body: Body, place: int, places: Sequence[str], values: Sequence[str]) -> str:
    """Append what gives the values at one of the four places: the first kept value there, else the second, else zero."""
    found = body.constant(0, np.float32)
    for at, value in ((places[1], values[1]), (places[0], values[0])):
        found = body.add("Where", body.add("Equal", at, body.constant(place, np.int32)), value, found)
    return found
