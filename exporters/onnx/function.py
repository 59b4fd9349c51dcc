"""vlmc::MatMul24 and MatMulDense in standard operators, as functions in the graph itself: any ONNX runtime computes them.

It does so slowly: they unpack the weight and multiply; runtime/kernels/layout.h describes what they unpack. Shapes: B blocks
of 16 outputs, C chunks of 32 columns, G 8 groups of 4, L 16 lanes, K the two kept weights, P the four places of a group, S
spans.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vlmc.exporters.onnx.weights import MATMUL24, MATMUL_DENSE
from vlmc.runtime.kernels.packing import GROUPS, ValueType

DOMAIN = "vlmc"
VERSION = 1


def function(operator: str, kind: ValueType, opset: int) -> onnx.FunctionProto:
    """Return the function of MatMul24 or MatMulDense for values of a type; a graph holds one of each."""
    positions = ["positions"] if operator == MATMUL24 else []
    inputs = ["X", "values", *positions, "bias", *(["scales"] if kind == "int8" else [])]
    body = Body()
    weight = body.sliced(_dense(body, kind) if operator == MATMUL_DENSE else _spread(body, kind))
    if kind == "int8":
        weight = body.add("Mul", weight, body.sliced(_scales(body)))
    turned = body.add("Transpose", weight, perm=[1, 0])
    body.nodes.append(helper.make_node("Add", [body.add("MatMul", "X", turned), "bias"], ["Y"]))
    opsets = [helper.make_opsetid("", opset)]
    sizes = ["in_features", "out_features", "span", "accuracy_level"]
    return helper.make_function(DOMAIN, operator, inputs, ["Y"], body.nodes, opsets, sizes)


class Body:
    """Nodes in the making, of a function."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; return its output's name."""
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [output], **attributes))
        return output

    def constant(self, value: Sequence[Any] | float, kind: type[np.generic]) -> str:
        """Append a constant."""
        return self.add("Constant", value=numpy_helper.from_array(np.array(value, kind)))

    def size(self, attribute: str) -> str:
        """Append an attribute of the function as a tensor of one number."""
        scalar = self.add("Constant")
        self.nodes[-1].attribute.append(
            onnx.AttributeProto(name="value_int", ref_attr_name=attribute, type=onnx.AttributeProto.INT)
        )
        return self.add("Reshape", scalar, self.constant([1], np.int64))

    def sliced(self, padded: str) -> str:
        """Append what cuts a padded matrix to (out_features, in_features)."""
        ends = self.add("Concat", self.size("out_features"), self.size("in_features"), axis=0)
        return self.add("Slice", padded, self.constant([0, 0], np.int64), ends)


def _dense(body: Body, kind: ValueType) -> str:
    """Append what unpacks a dense weight, values in pairs (B, C, G, 2, K, L), bf16 (B, C, G, 2, L, K); return its name."""
    values = body.add("Cast", "values", to=TensorProto.FLOAT)
    order = [0, 4, 1, 2, 3, 5] if kind == "bf16" else [0, 5, 1, 2, 3, 4]  # B L C G pair K
    return body.add("Flatten", body.add("Transpose", values, perm=order), axis=2)


def _spread(body: Body, kind: ValueType) -> str:
    """Append what unpacks a 2:4 weight; return its name, (B * L, C * G * P)."""
    words = body.add("Unsqueeze", "positions", body.constant([2, 4], np.int64))  # B C 1 L 1
    shifts = body.constant((4 * np.arange(GROUPS)[:, None, None] + np.array([0, 2])).tolist(), np.uint32)  # G 1 K
    shifted = body.add("BitShift", words, shifts, direction="RIGHT")
    places = body.add("Mod", shifted, body.constant(4, np.uint32))
    signed = body.add("Cast", places, to=TensorProto.INT32)
    marked = body.add(
        "Equal", body.add("Unsqueeze", signed, body.constant([5], np.int64)), body.constant(list(range(4)), np.int32)
    )
    kept = body.add("Cast", "values", to=TensorProto.FLOAT)
    if kind != "bf16":
        kept = body.add("Transpose", kept, perm=[0, 1, 2, 4, 3])  # B C G L K
    spread = body.add(
        "Where", marked, body.add("Unsqueeze", kept, body.constant([5], np.int64)), body.constant(0, np.float32)
    )
    groups = body.add("ReduceSum", spread, body.constant([4], np.int64), keepdims=0)  # B C G L P
    return body.add("Flatten", body.add("Transpose", groups, perm=[0, 3, 1, 2, 4]), axis=2)


def _scales(body: Body) -> str:
    """Append what repeats the scales (B, S, L) for every weight; return its name, (B * L, S * span)."""
    rows = body.add("Flatten", body.add("Transpose", "scales", perm=[0, 2, 1]), axis=2)  # (B * L, S)
    each = body.add("Unsqueeze", rows, body.constant([2], np.int64))
    repeats = body.add("Concat", body.constant([1, 1], np.int64), body.size("span"), axis=0)
    return body.add("Flatten", body.add("Tile", each, repeats), axis=1)
