"""Packed weights are mapped from their file: sessions share them, and hold no copy of their own."""

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.kernels.material import needs_library, sparse_OI
from vlmc.exporters.onnx.packed import Packing, pack_weights
from vlmc.runtime.kernels.packing import ValueType
from vlmc.runtime.sessions import OnnxSession
from vlmc.runtime.sparsity import SparsityPattern

pytestmark = [needs_library, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
SIZE = 2048
COUNT = 4
SESSIONS = 3


def write(path: Path) -> None:
    """Write a graph of four 2:4 products and a dense one; in fp32 they take 80 MiB."""
    names = [*(f"w{i}" for i in range(COUNT)), "head"]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"{name}.weight"], [f"x{i + 1}"]) for i, name in enumerate(names)]
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(sparse_OI(SIZE, SIZE, i).T), f"{name}.weight")
        for i, name in enumerate(names)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, SIZE]) for name in ("x0", f"x{COUNT + 1}")]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def own_bytes() -> int:
    """Return the memory that this process shares with no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def held(path: Path) -> dict[str, int]:
    """Return what smaps says of a file's mappings: `Rss` and its like, in bytes, of all of them together."""
    sums, inside = {"Rss": 0, "Pss": 0, "Anonymous": 0}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(f" {path}")
        name, _, rest = line.partition(":")
        if inside and name in sums:
            sums[name] += 1024 * int(rest.split()[0])
    return sums


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_sessions_share_the_weights_and_hold_no_copy(kind: ValueType, tmp_path: Path) -> None:
    path = tmp_path / "products.onnx"
    write(path)
    packed = pack_weights(path, {f"w{i}": SparsityPattern.parse("2:4") for i in range(COUNT)}, Packing(kind))
    data = path.with_name(f"{path.name}.data")
    assert (len(packed.layers), packed.dense) == (COUNT, 1)
    share = {"bf16": 9 / 16, "int8": 5 / 16 + 1 / 64}[kind]  # of dense bf16, with a float32 scale for 128 columns
    assert packed.packed_bytes == packed.bf16_bytes * share
    size = data.stat().st_size
    x = {"x0": np.ones((1, SIZE), np.float32)}
    with OnnxSession(path) as warm:
        warm.run(x)
    before = own_bytes()
    opened = [OnnxSession(path) for _ in range(SESSIONS)]
    for session in opened:
        session.run(x)
    found = held(data)
    assert found["Rss"] >= 0.95 * SESSIONS * size  # each has mapped all of it
    assert found["Pss"] <= 1.05 * size  # and all together hold it once
    assert found["Anonymous"] == 0
    assert own_bytes() - before < SESSIONS * packed.packed_bytes / 2
    for session in opened:
        session.close()
