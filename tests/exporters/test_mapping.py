"""Packed weights are mapped from their file: sessions share them, and hold no copy of their own."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.kernels.material import needs_library, sparse_OI
from vlmc.exporters.onnx.packed import Packing, pack_weights
from vlmc.runtime.sessions import OnnxSession
from vlmc.runtime.sparsity import SparsityPattern

pytestmark = [needs_library, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
SIZE = 1024
COUNT = 4


def write(path: Path) -> None:
    """Write a graph of four 2:4 products; in fp32 they take 16 MiB."""
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}.weight"], [f"x{i + 1}"]) for i in range(COUNT)]
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(sparse_OI(SIZE, SIZE, i).T), f"w{i}.weight") for i in range(COUNT)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, SIZE]) for name in ("x0", f"x{COUNT}")]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def own_bytes() -> int:
    """Return the memory that this process shares with no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


@pytest.mark.integration
def test_sessions_hold_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "products.onnx"
    write(path)
    packed = pack_weights(path, {f"w{i}": SparsityPattern.parse("2:4") for i in range(COUNT)}, Packing("bf16"))
    data = path.with_name(f"{path.name}.data")
    assert len(packed.layers) == COUNT
    assert packed.packed_bytes * 16 == packed.bf16_bytes * 9
    assert packed.packed_bytes <= data.stat().st_size <= packed.packed_bytes * 1.01
    x = {"x0": np.ones((1, SIZE), np.float32)}
    with OnnxSession(path) as warm:
        warm.run(x)
    before = own_bytes()
    opened = [OnnxSession(path) for _ in range(3)]
    for session in opened:
        session.run(x)
    assert str(data) in Path("/proc/self/maps").read_text()
    assert own_bytes() - before < packed.packed_bytes / 2
    for session in opened:
        session.close()
