"""A frugal session converts a graph's weights one by one, and holds none of them."""

import sys
from pathlib import Path
from threading import Event, Thread

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.exporters.test_mapping import own_bytes
from vlmc.runtime.sessions import OnnxSession

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
COUNT, ROWS, COLUMNS = 12, 1024, 4096
CONVERTED = 4 * ROWS * COLUMNS


def write(path: Path) -> None:
    """Write a chain of products in fp16, whose weights take 16 MiB each in fp32, in a file of their own."""
    draw, names = np.random.default_rng(0), [f"w{i}" for i in range(COUNT)]
    shapes = [(ROWS, COLUMNS), (COLUMNS, ROWS)] * (COUNT // 2)
    weights = [
        numpy_helper.from_array((draw.standard_normal(shape) / 64).astype(np.float16), name)
        for name, shape in zip(names, shapes, strict=True)
    ]
    nodes = [helper.make_node("MatMul", [f"x{i}", name], [f"x{i + 1}"]) for i, name in enumerate(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [None, ROWS]) for name in ("x0", f"x{COUNT}")]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")


@pytest.mark.integration
def test_weights_are_converted_when_they_are_needed_and_then_dropped(tmp_path: Path) -> None:
    path, done, seen = tmp_path / "products.onnx", Event(), [0]
    write(path)

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(own_bytes())

    with OnnxSession(path, threads=1, frugal=True) as session:
        feeds = {"x0": np.ones((2, ROWS), np.float16)}
        session.run(feeds)
        before, thread = own_bytes(), Thread(target=watch)
        thread.start()
        for _ in range(5):
            session.run(feeds)
        done.set()
        thread.join()
    assert len(seen) > 20
    assert max(seen) - before < 4 * CONVERTED < COUNT * CONVERTED / 2
