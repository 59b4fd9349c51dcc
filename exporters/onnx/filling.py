"""The weights of a traced graph: each is read, cast and turned when the file is written, and dropped afterwards.

So a graph larger than memory can be written. The graph is a model of onnx_ir, traced without the values of its weights.
"""

from collections.abc import Callable
from functools import partial

import onnx_ir as ir
from onnx_ir.tensor_adapters import TorchTensor
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from vlmc.exporters.graphs import GraphSpec

LARGE = 8192
"""Values above which a weight is turned when it is written; smaller ones are constants that are folded at once."""


def fill(model: ir.Model, spec: GraphSpec) -> None:
    """Let every initializer that has no values yet read those of the module's parameter of its name."""
    for name, value in model.graph.initializers.items():
        raw = getattr(value.const_value, "raw", None)
        if isinstance(raw, FakeTensor):
            _read_later(value, partial(_read, spec, name, raw))


def fold(model: ir.Model) -> None:
    """Compute what depends on constants alone, and drop what nothing needs; large weights are turned as they are written."""
    from onnxscript.optimizer import optimize_ir  # here, so that it is not loaded for graphs that are not traced

    optimize_ir(model, should_fold=lambda node: False if _turns_large(node) else None)
    for node in list(model.graph):
        if _turns_large(node) and len(node.inputs[0].uses()) == 1:
            _turn(model, node)


def _read(spec: GraphSpec, name: str, like: Tensor) -> ir.TensorProtocol:
    return TorchTensor(spec.weight(name).to(like.dtype), name)


def _read_later(value: ir.Value, read: Callable[[], ir.TensorProtocol]) -> None:
    assert value.dtype is not None
    assert value.shape is not None
    value.const_value = ir.LazyTensor(read, dtype=value.dtype, shape=ir.Shape(value.shape), name=value.name)


def _turns_large(node: ir.Node) -> bool:
    weight = node.inputs[0].const_value if node.op_type == "Transpose" and node.inputs[0] is not None else None
    return isinstance(weight, ir.LazyTensor) and weight.size > LARGE


def _turn(model: ir.Model, node: ir.Node) -> None:
    """Put the turned weight in the place of a Transpose."""
    weight, output = node.inputs[0], node.outputs[0]
    assert weight is not None
    tensor = weight.const_value
    assert tensor is not None
    order = node.attributes.get_ints("perm", tuple(reversed(range(len(tensor.shape)))))
    shape = ir.Shape([tensor.shape[axis] for axis in order])
    turned = ir.Value(name=output.name, type=ir.TensorType(tensor.dtype), shape=shape)
    _read_later(turned, lambda: ir.tensor(tensor.numpy().transpose(order), dtype=tensor.dtype, name=turned.name))
    output.replace_all_uses_with(turned)
    model.graph.remove(node, safe=True)
    del model.graph.initializers[str(weight.name)]
    model.graph.initializers.add(turned)
