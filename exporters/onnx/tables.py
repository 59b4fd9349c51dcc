"""Tables of embeddings in 16 or 8 bits: rows are gathered as they are stored, then widened, by standard operators.

Shapes: V rows of the table, D columns.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vlmc.exporters.onnx.pages import Pages
from vlmc.exporters.onnx.weights import Weights, attribute
from vlmc.runtime.kernels.packing import Array, ValueType, to_bfloat16

_ENDINGS, _SCALES = (".bf16", ".fp16", ".int8"), ".scales"
"""What a stored table's name ends in, its type, and that of an int8 table's scales."""


def narrow_tables(weights: Weights, kind: ValueType, pages: Pages) -> tuple[int, set[str]]:
    """Store the float32 tables that the graph gathers rows from in a type; return how many, and their new tensors.

    int8 is rounded to nearest, with a scale of max|w| / 127 for each row.
    """
    if kind == "fp32":
        return 0, set()
    graph = weights.model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    nodes, done, new = [], set(), list[onnx.TensorProto]()
    for node in graph.node:
        table = stored.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _is_table(node, table):
            nodes.append(node)
            continue
        nodes += _gathered(node, table.name, kind)
        if table.name not in done:
            new += [pages.put(tensor) for tensor in _tensors(table.name, weights.array(table.name), kind)]
            done.add(table.name)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(new)
    return len(done), {tensor.name for tensor in new}


def is_narrow(weights: Weights, node: onnx.NodeProto) -> bool:
    """Whether a Gather takes rows of a table that `narrow_tables` stored."""
    stored = weights.initializers.get(node.input[0])
    return stored is not None and node.input[0].endswith(_ENDINGS) and len(stored.dims) == 2


def table_of(weights: Weights, node: onnx.NodeProto) -> Array:
    """Return such a table (V, D) in float32."""
    name, _, kind = node.input[0].rpartition(".")
    table_VD: Array = weights.array(node.input[0]).astype(np.float32)
    return table_VD * weights.array(f"{name}{_SCALES}") if kind == "int8" else table_VD


def _is_table(node: onnx.NodeProto, stored: onnx.TensorProto) -> bool:
    return stored.data_type == TensorProto.FLOAT and len(stored.dims) == 2 and attribute(node, "axis", 0) == 0


def _gathered(node: onnx.NodeProto, table: str, kind: ValueType) -> list[onnx.NodeProto]:
    """Return what takes the place of a Gather: it, Cast, and Mul with the gathered scales."""
    [output], rows = node.output, node.input[1]
    narrow, wide, scale = f"{output}.{kind}", f"{output}.unscaled" if kind == "int8" else output, f"{output}.scale"
    gather = helper.make_node("Gather", [f"{table}.{kind}", rows], [narrow], name=node.name)
    gather.metadata_props.extend(node.metadata_props)
    nodes = [gather, helper.make_node("Cast", [narrow], [wide], to=TensorProto.FLOAT)]
    if kind == "int8":
        nodes.append(helper.make_node("Gather", [f"{table}{_SCALES}", rows], [scale]))
        nodes.append(helper.make_node("Mul", [wide, scale], [output]))
    return nodes


def _tensors(name: str, table_VD: Array, kind: ValueType) -> list[onnx.TensorProto]:
    if kind == "int8":
        scales_V1 = np.abs(table_VD).max(1, keepdims=True) / np.float32(127)
        whole = np.rint(np.divide(table_VD, scales_V1, out=np.zeros_like(table_VD), where=scales_V1 != 0))
        arrays = {f"{name}.int8": whole.astype(np.int8), f"{name}{_SCALES}": scales_V1}
        return [numpy_helper.from_array(array, key) for key, array in arrays.items()]
    narrow = to_bfloat16(table_VD) if kind == "bf16" else table_VD.astype(np.float16)
    found = numpy_helper.from_array(narrow, f"{name}.{kind}")
    if kind == "bf16":
        found.data_type = TensorProto.BFLOAT16
    return [found]
