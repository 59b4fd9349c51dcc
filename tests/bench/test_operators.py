"""What a token takes besides products with weights is read from ONNX Runtime's own times."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vlmc.runtime.sessions import OnnxSession
from vlmc.toolchain.bench.operators import beside, beside_products


def run(at: int, length: int) -> dict[str, Any]:
    return {"name": "model_run", "ts": at, "dur": length}


def kernel(at: int, taken: int, operator: str, *shapes: list[int]) -> dict[str, Any]:
    described = {"op_name": operator, "input_type_shape": [{"float": shape} for shape in shapes]}
    return {"cat": "Node", "name": "n_kernel_time", "ts": at, "dur": taken, "args": described}


def test_the_median_run_without_products_with_weights() -> None:
    events = []
    for number, softmax in enumerate((900, 900, 900, 3, 5, 70)):  # the first three do not count
        at = 1000 * number
        events += [kernel(at + 1, 400, "MatMul", [1, 8], [8, 8]), kernel(at + 2, 20, "MatMul", [1, 2, 1, 8], [1, 2, 8, 9])]
        events += [kernel(at + 3, softmax, "Softmax", [1, 2, 1, 9]), {"cat": "Node", "name": "n_fence", "ts": at, "dur": 7}]
        events.append(run(at, 990))
    assert beside(events) == pytest.approx(25e-6)


def test_writing_times_down_costs_what_an_idle_operator_takes() -> None:
    events = [run(1000 * number, 990) for number in range(5)]
    for number in range(5):
        at = 1000 * number
        events += [
            kernel(at + 1, 30, "Softmax", [1, 9]),
            kernel(at + 2, 1, "Mul", [1, 9]),
            kernel(at + 3, 50, "MatMul", [8], [8, 8]),
        ]
        events += [kernel(at + 4 + index, taken, "Reshape", [1, 9]) for index, taken in enumerate((3, 4, 4, 4, 10))]
    assert beside(events) == pytest.approx((26 + 6) * 1e-6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 256]) for name in "xy")
    weight = numpy_helper.from_array(np.ones((256, 256), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Softmax", ["p"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


def test_a_graph_is_run_as_it_is(path: Path) -> None:
    assert 0 < beside_products(path, {"x": np.ones((64, 256), np.float32)}, 1) < 1


def test_times_are_whole_though_somebody_is_still_bound_to_the_session(path: Path, tmp_path: Path) -> None:
    with OnnxSession(path, threads=1, times=tmp_path / "times") as session:
        bound = session.bound({})
        bound.run({"x": np.ones((64, 256), np.float32)})
    (written,) = tmp_path.glob("times*")
    assert "model_run" in {event["name"] for event in json.loads(written.read_text())}
    del bound
