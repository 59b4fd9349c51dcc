"""How fast this machine is with packed weights and with dense ones, measured in two seconds."""

from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from vlmc.runtime.kernels.speed import DEFAULT_THREADS, Speeds, speeds

SIZE = (4096, 8192)
"""Outputs and inputs of a dense weight: 128 MiB in float32."""
WEIGHTS = 3  # different ones: ONNX Runtime keeps equal ones once
ROUNDS = 7


def machine_speeds(threads: int = DEFAULT_THREADS, now: Callable[[], float] = perf_counter) -> Speeds:
    """Measure what a prediction needs, with the clock `now`; dense products are ONNX Runtime's, where it is installed.

    Raises:
        EnvironmentLacks: the kernels were not built.
    """
    return speeds(threads=threads, now=now, dense_read=_dense_read(threads, now))


def _dense_read(threads: int, now: Callable[[], float]) -> float | None:
    """Return the bytes of float32 weights in memory that ONNX Runtime multiplies one row with in a second.

    None: onnx or ONNX Runtime is not installed.
    """
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(_products(*SIZE, WEIGHTS), options, providers=["CPUExecutionProvider"])
    feeds, times = {"x": np.ones((1, SIZE[1]), np.float32)}, []
    for _ in range(ROUNDS):
        began = now()
        session.run(None, feeds)
        times.append(now() - began)
    return 4 * SIZE[0] * SIZE[1] * WEIGHTS / median(times[1:])


def _products(outputs: int, inputs: int, count: int) -> bytes:
    """Return a graph that multiplies x (rows, I) with so many weights."""
    from onnx import TensorProto, helper

    def described(name: str, columns: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", columns])

    weights = [np.full((inputs, outputs), 1 + number, np.float32) for number in range(count)]
    tensors = [
        helper.make_tensor(f"w{at}", TensorProto.FLOAT, w.shape, w.tobytes(), raw=True) for at, w in enumerate(weights)
    ]
    nodes = [helper.make_node("MatMul", ["x", f"w{number}"], [f"y{number}"]) for number in range(count)]
    ends = [described(f"y{number}", outputs) for number in range(count)]
    graph = helper.make_graph(nodes, "products", [described("x", inputs)], ends, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())
