"""Values that a graph computes of its stored tensors alone, such as a weight that is scaled, reshaped or dequantised."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from vlmc.runtime.errors import InputError, one_line

_CHANGING = {"RandomNormal", "RandomUniform", "If", "Loop", "Scan"}
"""What has no inputs and yet no fixed value, or values of graphs of its own."""


def evaluate(
    model: onnx.ModelProto,
    name: str,
    producers: Mapping[str, onnx.NodeProto],
    stored: Collection[str],
    read: Callable[[str], onnx.TensorProto],
) -> NDArray[np.generic] | None:
    """Return a value by its name; None: it depends on the graph's inputs. `read` gives a stored tensor.

    Raises:
        InputError: it is computed by an operation that onnx cannot evaluate.
    """
    nodes = _needed(name, stored, producers)
    if nodes is None:
        return None
    from onnx.reference import ReferenceEvaluator

    inputs = {one for node in nodes for one in node.input} & set(stored)
    output = helper.make_empty_tensor_value_info(name)
    graph = helper.make_graph(nodes, "constant", [], [output], [_named(read(one), one) for one in sorted(inputs)])
    try:
        whole = helper.make_model(graph, opset_imports=model.opset_import, functions=model.functions)
        found: list[Any] = ReferenceEvaluator(whole).run(None, {})
        return np.asarray(found[0])
    except Exception as error:  # its operations raise what they like
        raise InputError(f"the weight {name} is computed in a way that cannot be followed: {one_line(error)}") from None


def _needed(name: str, stored: Collection[str], producers: Mapping[str, onnx.NodeProto]) -> list[onnx.NodeProto] | None:
    """Return the nodes that compute a value, in order; None: they need more than stored tensors."""
    found: list[onnx.NodeProto] = []
    done, waiting = set(stored) | {""}, [name]
    while waiting:
        wanted = waiting[-1]
        producer = producers.get(wanted)
        if wanted in done:
            waiting.pop()
        elif producer is None or producer.op_type in _CHANGING:
            return None
        elif missing := [one for one in producer.input if one not in done]:
            waiting += missing
        else:
            found.append(producer)
            done |= set(producer.output)
    return found


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Return a stored tensor under the name that the nodes know; a constant's own may be another."""
    if tensor.name == name:
        return tensor
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy
