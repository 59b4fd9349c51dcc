"""A small module with two sparse layers, and hand-made ONNX files with weights in every place where they occur."""

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.runtime.sparsity import SparsityPattern

TWO_FOUR = SparsityPattern.parse("2:4")
BATCH = Axis("batch", 1, 4, 8)


class Small(nn.Module):
    """One layer on rows (Gemm) and one on sequences (MatMul)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = nn.Linear(16, 32)
        self.sequence = nn.Linear(32, 16, bias=False)
        for layer in (self.rows, self.sequence):
            layer.weight.data.mul_(TWO_FOUR.mask(layer.weight.detach().abs()))

    def forward(self, x: Tensor) -> Tensor:
        sequence: Tensor = self.sequence(torch.relu(self.rows(x)).unsqueeze(1).expand(-1, 3, -1))
        return sequence


def small(**changes: object) -> GraphSpec:
    """Describe the small module."""
    module = Small().eval()
    fields: dict[str, object] = {
        "name": "small",
        "module": module,
        "inputs": {"x": torch.randn(2, 16)},
        "outputs": ("y",),
        "axes": {"x": {0: BATCH}},
        "cases": [{"x": torch.randn(5, 16)}, {"x": torch.randn(1, 16)}],
        "sparse": {"rows": TWO_FOUR, "sequence": TWO_FOUR},
    }
    return GraphSpec(**fields | changes)  # type: ignore[arg-type]


def sparse_OI(rows: int = 6, columns: int = 8) -> NDArray[np.float32]:
    """Return a random 2:4 weight (O, I) with no other zeros."""
    weight = np.random.default_rng(rows).normal(size=(rows, columns)).astype(np.float32)
    weight *= TWO_FOUR.mask(np.abs(weight))
    return weight


FORMS = ("matmul", "stacked matmul", "gemm", "gemm transB", "conv", "transpose", "cast", "dequantize", "zero points")
"""Every place where a weight is looked for."""


def write_form(form: str, weight_OI: NDArray[np.float32], path: Path) -> Path:
    """Write an ONNX file that multiplies with the weight (O, I), stored in the given way."""
    nodes, stored = _FORMS[form](weight_OI)
    initializers = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    rank = 4 if form == "conv" else 2
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * rank)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "form", [x], [y], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


Form = tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]


def _matmul(w: NDArray[np.float32]) -> Form:
    return [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ascontiguousarray(w.T)}


def _stacked(w: NDArray[np.float32]) -> Form:
    return [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.stack([w.T, w.T])}


def _gemm(w: NDArray[np.float32]) -> Form:
    return [helper.make_node("Gemm", ["x", "w"], ["y"])], {"w": np.ascontiguousarray(w.T)}


def _gemm_transposed(w: NDArray[np.float32]) -> Form:
    return [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], {"w": w}


def _conv(w: NDArray[np.float32]) -> Form:
    return [helper.make_node("Conv", ["x", "w"], ["y"])], {"w": np.stack([w, w], -1)[..., None]}


def _transpose(w: NDArray[np.float32]) -> Form:
    turned = helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0])
    return [turned, helper.make_node("MatMul", ["x", "t"], ["y"])], {"w": w}


def _cast(w: NDArray[np.float32]) -> Form:
    cast = helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT)
    return [cast, helper.make_node("MatMul", ["x", "c"], ["y"])], {"w": np.ascontiguousarray(w.T).astype(np.float16)}


def _dequantize(w: NDArray[np.float32]) -> Form:
    whole = np.where(w.T == 0, 0, np.where(w.T > 0, 5, -5)).astype(np.int8)
    node = helper.make_node("DequantizeLinear", ["w", "scale"], ["d"])
    return [node, helper.make_node("MatMul", ["x", "d"], ["y"])], {"w": whole, "scale": np.array(0.1, np.float32)}


def _zero_points(w: NDArray[np.float32]) -> Form:
    zeros = np.arange(len(w), dtype=np.uint8) + 100  # one per output channel
    whole = (np.where(w == 0, 0, 7) + zeros[:, None]).astype(np.uint8)
    node = helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["d"], axis=0)
    stored: dict[str, NDArray[np.generic]] = {"w": whole, "scale": np.full(len(w), 0.1, np.float32), "zero": zeros}
    return [node, helper.make_node("Gemm", ["x", "d"], ["y"], transB=1)], stored


_FORMS = dict(
    zip(
        FORMS,
        (_matmul, _stacked, _gemm, _gemm_transposed, _conv, _transpose, _cast, _dequantize, _zero_points),
        strict=True,
    )
)
