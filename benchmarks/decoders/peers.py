"""OpenVINO running the very graph that ONNX Runtime runs, in float32, bf16, or with int8 weights."""

from pathlib import Path
from typing import Any

import numpy as np

from decoders.inputs import embeddings
from decoders.running import Runner
from decoders.shapes import Decoder


class OpenVino(Runner):
    """Two requests by turns, so that the cache that one gave out is what the other is given, without a copy."""

    def __init__(self, decoder: Decoder, path: Path, threads: int, kind: str) -> None:
        import openvino

        core = openvino.Core()
        model: Any = core.read_model(path)
        self.nbytes = sum(_narrow(node, kind) for node in model.get_ops() if node.get_type_name() == "MatMul")
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32"}
        compiled: Any = core.compile_model(model, "CPU", settings)
        self._requests, self._decoder = [compiled.create_infer_request() for _ in range(2)], decoder
        self._ends = [f"{layer}.{end}" for layer in range(decoder.layers) for end in ("key", "value")]

    def prefill(self, tokens: int) -> None:
        import openvino

        shape = (1, self._decoder.shared_heads, 0, self._decoder.head_size)
        self._past = {end: openvino.Tensor(np.zeros(shape, np.float32)) for end in self._ends}
        self._length = 0
        self._run(tokens)

    def step(self) -> None:
        self._run(1)

    def _run(self, tokens: int) -> None:
        import openvino

        self._length += tokens
        self._requests.reverse()
        request, given = self._requests[0], embeddings(self._decoder, tokens, self._length)
        for name, array in given.items():
            request.set_tensor(name, openvino.Tensor(array))
        for end in self._ends:
            request.set_tensor(f"past.{end}", self._past[end])
        request.infer()
        self._past = {end: request.get_tensor(f"present.{end}") for end in self._ends}
        self.logits = request.get_tensor("logits").data


def _narrow(product: Any, kind: str) -> int:
    """Return the bytes of a product's stored weight (I, O), 0 where it has none; for int8 make it whole numbers first."""
    import openvino
    from openvino import opset13 as operations

    stored = product.input_value(1).get_node()
    if stored.get_type_name() != "Constant":
        return 0
    weight_IO = np.array(stored.data, np.float32)
    if kind != "int8":
        return int(weight_IO.nbytes) // (2 if kind == "bf16" else 1)
    scales_1O = np.abs(weight_IO).max(0, keepdims=True) / np.float32(127)
    whole = operations.constant(np.rint(weight_IO / scales_1O).astype(np.int8))
    wide = operations.multiply(operations.convert(whole, openvino.Type.f32), operations.constant(scales_1O))
    product.input(1).replace_source_output(wide.output(0))
    return int(weight_IO.size + scales_1O.nbytes)
