"""Weights are read, cast and turned as the file is written: large ones lie in it as the products read them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from vlmc.exporters.base import Precision
from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.exporters.onnx.filling import LARGE
from vlmc.exporters.onnx.tracing import trace
from vlmc.exporters.skeleton import TYPES

pytestmark = pytest.mark.integration

WIDTH = 112


class Products(nn.Module):
    """A product with a large weight, twice with another one, and with the sum of two small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.scale = nn.Parameter(torch.rand(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.twice(self.twice(self.once(x))) * (1 + self.scale)
        return y


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_large_weights_are_turned(tmp_path: Path, precision: Precision) -> None:
    torch.manual_seed(0)
    module = Products().eval()
    assert module.once.weight.numel() > LARGE
    x = torch.rand(3, 5, WIDTH)
    spec = GraphSpec("products", module, {"x": x}, ("y",), axes={"x": {0: Axis("rows", 1, 2, 4)}})
    trace(spec, tmp_path / "a.onnx", precision)
    graph = onnx.load(tmp_path / "a.onnx").graph
    stored = {one.name: torch.from_numpy(numpy_helper.to_array(one).astype(np.float64)) for one in graph.initializer}
    weights = {name: one.detach().to(TYPES[precision]).double() for name, one in module.named_parameters()}
    assert torch.equal(stored["once.weight"], weights["once.weight"].T)
    assert torch.equal(stored["twice.weight"], weights["twice.weight"].T)
    assert [node.op_type for node in graph.node].count("Transpose") == 0
    assert "scale" not in stored, "small ones are folded"
    assert {one.data_type for one in graph.initializer} == {
        onnx.helper.np_dtype_to_tensor_dtype(numpy_helper.to_array(graph.initializer[0]).dtype)
    }


def test_a_weight_that_is_read_in_two_ways_is_there_once(tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Linear(WIDTH, WIDTH, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.rows(x) + x @ self.rows.weight

    spec = GraphSpec("both", Both().eval(), {"x": torch.rand(3, 5, WIDTH)}, ("y",))
    trace(spec, tmp_path / "a.onnx", "fp32")
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert [one.name for one in graph.initializer] == ["rows.weight"]
