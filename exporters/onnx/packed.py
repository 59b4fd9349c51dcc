"""Packs the weights of an ONNX file: MatMul and Gemm become vlmc::MatMul24 where 2:4 is promised, else vlmc::MatMulDense.

A bias that is added to such a product goes into it. Tables of embeddings are stored in the same type. Large tensors stand in
`<file>.data`, each at the start of a page, so that ONNX Runtime maps them and copies nothing. One weight is in memory at a
time. Shapes: O outputs, I inputs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vlmc.exporters.onnx.function import DOMAIN, VERSION, function
from vlmc.exporters.onnx.pages import Pages
from vlmc.exporters.onnx.tables import narrow_tables
from vlmc.exporters.onnx.weights import MATMUL24, MATMUL_DENSE, PACKED, VALUES, Weights, attribute
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.kernels.columns import SPAN
from vlmc.runtime.kernels.packing import GROUP, Array, Packed, ValueType, pack, pack_rounded
from vlmc.runtime.kernels.rounding import Rounded
from vlmc.runtime.sessions import PACKED_KEY
from vlmc.runtime.sparsity import SparsityPattern

ROUNDING: dict[ValueType, float] = {"fp32": 0.0, "bf16": 2.0**-8, "fp16": 2.0**-11, "int8": 1 / 254}
"""The largest rounding of a weight: of int8 as a fraction of the largest one that shares its scale, else of itself."""
EXACT, _LEVEL = 1, "accuracy_level"
"""The level at which operators round no activations, and what holds it."""
_TWO_FOUR = SparsityPattern.parse("2:4")


@dataclass(frozen=True)
class Repacked:
    """What was done to a file: the layers whose weights are 2:4 and packed, and how many weights are dense in that type.

    `compensated` counts those of both that were in whole numbers already.
    `packed_bytes` is what the 2:4 weights take now, `bf16_bytes` what they would take dense in bf16.
    """

    layers: list[str]
    dense: int
    compensated: int
    packed_bytes: int
    bf16_bytes: int


@dataclass(frozen=True)
class Packing:
    """How weights are packed: the type, the operators' accuracy_level (activations may be rounded to bf16: 3, to int8: 4).

    For int8, `span` columns share a scale; `rounded` has the layers' weights that are in whole numbers already.
    """

    kind: ValueType
    level: int = EXACT
    span: int = SPAN
    rounded: Mapping[str, Rounded] = field(default_factory=dict)


def pack_weights(path: Path, promised: Mapping[str, SparsityPattern], packing: Packing) -> Repacked:
    """Rewrite the file in place: promised 2:4 weights are packed, others stored in the same type where that is smaller."""
    model = onnx.load(path, load_external_data=False)
    weights, pages = Weights(model, path.parent), Pages(path, beside=True)
    found = {layer: weights.of_layer(layer) for layer in promised}
    places = {layer: weight.initializer for layer, weight in found.items() if weight is not None}
    two_four = {name for layer, name in places.items() if promised[layer] == _TWO_FOUR}
    by_name = {name: packing.rounded[layer] for layer, name in places.items() if layer in packing.rounded}
    packed, new = _replace(model.graph, weights, two_four, replace(packing, rounded=by_name), pages)
    tables, narrow = narrow_tables(weights, packing.kind, pages)
    _drop_unused(model.graph)
    used = {made.operator for made in packed.values()}
    if used:
        opset = next(entry.version for entry in model.opset_import if entry.domain == "")
        model.functions.extend(function(operator, packing.kind, opset) for operator in sorted(used))
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
        model.metadata_props.add(key=PACKED_KEY, value=packing.kind)
    pages.finish(model, weights, new | narrow)
    layers = [layer for layer, name in places.items() if name in two_four and name in packed]
    sparse = [made for made in packed.values() if made.operator == MATMUL24]
    sizes = sum(made.nbytes for made in sparse), sum(2 * made.outputs * made.inputs for made in sparse)
    return Repacked(layers, len(packed) - len(sparse) + tables, len(by_name.keys() & packed.keys()), *sizes)


def let_round(path: Path, level: int) -> None:
    """Let the operators of packed weights round activations: to bf16, 3, or to int8, 4, as MatMulNBits' accuracy_level."""
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for held in node.attribute:
            if node.op_type in PACKED and held.name == _LEVEL:
                held.i = level
    onnx.save(model, path)


def check_packed(path: Path, layers: Iterable[tuple[str, Array]], packing: Packing) -> None:
    """Hold the packed weights of a file against those they were made of: pairs of a layer and its weight (O, I).

    Raises:
        CheckFailed: a layer is not packed, a weight is another one than rounding makes of it, or a zero is none any more.
    """
    weights = Weights(onnx.load(path, load_external_data=False), path.parent)
    for layer, expected_OI in layers:
        weight = weights.of_layer(layer)
        found_OI = None if weight is None else weights.array(weight.initializer)
        if found_OI is None or found_OI.shape != expected_OI.shape:
            raise CheckFailed(f"{path.name}: the weight of {layer} is not packed")
        if not _is_rounded(found_OI, expected_OI, packing, layer):
            raise CheckFailed(f"{path.name}: the packed weight of {layer} is not the model's, rounded to {packing.kind}")
        if (found_OI[expected_OI == 0] != 0).any():
            raise CheckFailed(f"{path.name}: the packed weight of {layer} is not zero where the model's is")


def check_dense(path: Path, parameters: Iterable[tuple[str, Array, Array]], packing: Packing) -> None:
    """Hold stored weights against the module's: a parameter's name, what is stored, and the parameter, both (O, I).

    Raises:
        CheckFailed: a weight is another one than rounding makes of it.
    """
    for name, found, expected in parameters:
        if not _is_rounded(found, expected, packing, name.removesuffix(".weight")):
            raise CheckFailed(f"{path.name}: the stored {name} is not the model's, rounded to {packing.kind}")


def _is_rounded(found_OI: Array, expected_OI: Array, packing: Packing, layer: str) -> bool:
    """Whether a weight is the one that was rounded already, or within a rounding of the model's."""
    if layer in packing.rounded:
        return bool((found_OI == packing.rounded[layer].weight_OI).all())
    kind = packing.kind
    largest = np.abs(expected_OI).max(1, keepdims=True) if kind == "int8" else np.abs(expected_OI)
    allowed = ROUNDING[kind] * 1.001 * largest + (2.0**-25 if kind == "fp16" else 0)
    return bool((np.abs(found_OI - expected_OI) <= allowed).all())


@dataclass(frozen=True)
class _Made:
    """A packed weight without its values: the operator that reads it, its sizes, its tensors, and the bytes of these."""

    operator: str
    outputs: int
    inputs: int
    span: int
    values: str
    positions: tuple[str, ...]
    scales: tuple[str, ...]
    nbytes: int


def _replace(
    graph: onnx.GraphProto, weights: Weights, two_four: set[str], packing: Packing, pages: Pages
) -> tuple[dict[str, _Made], set[str]]:
    """Put operators of packed weights in the place of products; return what is packed, by initializer, and the new tensors.

    `packing.rounded` is by initializer here.
    """
    consumers = {name: node for node in graph.node for name in node.input}
    uses = Counter(name for node in graph.node for name in _reads(node)) + Counter(output.name for output in graph.output)
    packed: dict[str, _Made] = {}
    tensors: list[onnx.TensorProto] = []
    new: dict[str, onnx.NodeProto] = {}  # by the output of the node whose place it takes
    for node, weight in weights:
        name = weight.initializer
        if weight.place != 1 or name not in weights.initializers or not _is_plain(node, weights.initializers[name]):
            continue
        if name not in packed:
            sparse, inputs = name in two_four, weights.initializers[name].dims[weight.axis]
            if not sparse and (packing.kind == "fp32" or inputs % GROUP):
                continue
            made = _packed(np.moveaxis(weights.array(name), weight.axis, -1), name, packing, dense=not sparse)
            written = [pages.put(tensor) for tensor in _tensors(name, made)]
            packed[name] = _of(made, [tensor.name for tensor in written])
            tensors += written
        about = packed[name]
        bias, output = node.input[2] if len(node.input) > 2 else "", node.output[0]
        added = consumers.get(output)
        if not bias and uses[output] == 1 and added is not None and added.op_type == "Add":
            [other] = [name for name in added.input if name != output] or [""]
            if _is_vector(weights, other, about.outputs):
                bias, output = other, added.output[0]
        new[output] = _node(node, about, bias, output)
        new[output].attribute.append(helper.make_attribute(_LEVEL, packing.level))
    places = [new.get(node.output[0], node) for node in graph.node]
    del graph.node[:]
    graph.node.extend(places)
    sizes = sorted({made.outputs for made in packed.values()})
    tensors += [pages.put(numpy_helper.from_array(np.zeros(size, np.float32), _no_bias(size))) for size in sizes]
    graph.initializer.extend(tensors)
    return packed, {tensor.name for tensor in tensors}


def _packed(weight_OI: Array, name: str, packing: Packing, *, dense: bool) -> Packed:
    if name in packing.rounded:
        return pack_rounded(packing.rounded[name], dense=dense)
    return pack(weight_OI, packing.kind, dense=dense, span=packing.span)


def _is_plain(node: onnx.NodeProto, stored: onnx.TensorProto) -> bool:
    """Whether the product is x W + bias in float32 and no more."""
    if stored.data_type != TensorProto.FLOAT or len(stored.dims) != 2:
        return False
    if node.op_type == "MatMul":
        return True
    factors = [attribute(node, name, 1.0) for name in ("alpha", "beta")]
    return node.op_type == "Gemm" and factors == [1.0, 1.0] and not attribute(node, "transA", 0)


def _is_vector(weights: Weights, name: str, size: int) -> bool:
    return name in weights.initializers and list(weights.initializers[name].dims) == [size]


def _of(packed: Packed, names: Sequence[str]) -> _Made:
    """Return what is to be known of a packed weight once its tensors, which have these names, are written."""
    values, *rest = names
    positions = rest[: packed.positions is not None]
    sizes = packed.outputs, packed.inputs, packed.span
    operator = MATMUL24 if positions else MATMUL_DENSE
    return _Made(operator, *sizes, values, tuple(positions), tuple(rest[len(positions) :]), packed.nbytes)


def _node(node: onnx.NodeProto, packed: _Made, bias: str, output: str) -> onnx.NodeProto:
    inputs = [node.input[0], packed.values, *packed.positions, bias or _no_bias(packed.outputs), *packed.scales]
    sizes = {"in_features": packed.inputs, "out_features": packed.outputs, "span": packed.span}
    made = helper.make_node(packed.operator, inputs, [output], name=node.name, domain=DOMAIN, **sizes)
    made.metadata_props.extend(node.metadata_props)
    return made


def _no_bias(size: int) -> str:
    """Return the name of the zeros that stand for a bias: functions in graphs cannot leave an input out."""
    return f"no_bias_{size}"


def _tensors(name: str, packed: Packed) -> list[onnx.TensorProto]:
    arrays = {name + VALUES: packed.values, f"{name}.positions": packed.positions, f"{name}.scales": packed.scales}
    tensors = [numpy_helper.from_array(array, key) for key, array in arrays.items() if array is not None]
    if packed.type == "bf16":
        tensors[0].data_type = TensorProto.BFLOAT16
    return tensors


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove what nobody reads any longer: the old weights, and what moved or converted them."""
    used = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(_reads(node))
            kept.append(node)
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:]
    del graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those inside its subgraphs included."""
    inner = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    return {*node.input, *(name for graph in inner for within in graph.node for name in _reads(within))}
