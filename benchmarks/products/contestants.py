"""Everyone who multiplies: ready to run, with the bytes of weights that one pass reads."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from decoders.graphs import Product, in_bits, whole
from onnx import TensorProto, helper, numpy_helper

from products.subject import Subject
from vlmc.runtime.kernels.native import require_library
from vlmc.runtime.kernels.packing import Array, ValueType

OURS: dict[str, ValueType] = {"2:4 bf16": "bf16", "2:4 fp16": "fp16", "2:4 fp32": "fp32", "2:4 int8": "int8"}
PACKED, ROUNDED, DENSE, ORT = "2:4 bf16", "2:4 bf16, x rounded to bf16", "our kernel, dense bf16", "ONNX Runtime fp32"
WHOLE = "2:4 int8, x rounded to int8"
TORCH, OPENVINO, OPENVINO_BF16 = "torch bf16", "OpenVINO fp32", "OpenVINO bf16"
OPENVINO_INT8, OPENVINO_SPARSE = "OpenVINO int8, weights and x", "OpenVINO int8, sparse decompression"
HALF, INTEGER = "ONNX Runtime fp16", "ONNX Runtime MatMulInteger"
BITS = {"ONNX Runtime MatMulNBits 8": 8, "ONNX Runtime MatMulNBits 4": 4}
SPARSE_RATE: dict[str, object] = {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 0.4}
"""From what share of zeros on OpenVINO reads int8 weights compressed; it does so with AMX alone."""


class Contestant(ABC):
    """Multiplies x with every weight of a subject."""

    nbytes: int
    """Of all weights, as they are read."""

    @abstractmethod
    def prepared(self, x_RI: Array) -> Callable[[], object]:
        """Return what computes all products of x; inputs and outputs have their places already."""

    @abstractmethod
    def answer(self, x_RI: Array) -> Array:
        """Return the first product (R, O) in float32."""


class OnnxRuntime(Contestant):
    """One graph with a node for every weight: MatMul, our operator where a type is given, or others."""

    def __init__(
        self,
        subject: Subject,
        threads: int,
        kind: ValueType | None = None,
        *,
        dense: bool = False,
        level: int = 1,
        others: Product | None = None,
        half: bool = False,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads disturb who comes next
        if others is not None:
            nodes, tensors = _made(subject, others)
        elif kind is None:
            nodes, tensors = _in_half(subject) if half else _matmuls(subject)
        else:
            options.register_custom_ops_library(str(require_library()))
            nodes, tensors = _packed(subject, kind, level, dense=dense)
        self.nbytes = sum(len(tensor.raw_data) for tensor in tensors)
        model = _model(subject, nodes, tensors)
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._subject = subject

    def prepared(self, x_RI: Array) -> Callable[[], object]:
        binding = self._session.io_binding()
        binding.bind_cpu_input("x", x_RI)
        self._outputs = [np.empty((len(x_RI), self._subject.outputs), np.float32) for _ in range(self._subject.copies)]
        for index, y in enumerate(self._outputs):
            binding.bind_output(f"y{index}", "cpu", 0, np.float32, y.shape, y.ctypes.data)
        return lambda: self._session.run_with_iobinding(binding)

    def answer(self, x_RI: Array) -> Array:
        found: Array = self._session.run(["y0"], {"x": x_RI})[0]
        return found


class Torch(Contestant):
    """torch's linear in bf16."""

    def __init__(self, subject: Subject) -> None:
        import torch

        self._weights = [torch.from_numpy(weight).bfloat16() for weight in subject.weights]
        self.nbytes = sum(weight.nbytes for weight in self._weights)

    def prepared(self, x_RI: Array) -> Callable[[], object]:
        import torch

        x = torch.from_numpy(x_RI).bfloat16()

        def run() -> None:
            with torch.inference_mode():
                for weight in self._weights:
                    torch.nn.functional.linear(x, weight)

        return run

    def answer(self, x_RI: Array) -> Array:
        import torch

        found: Array = torch.nn.functional.linear(torch.from_numpy(x_RI).bfloat16(), self._weights[0]).float().numpy()
        return found


class OpenVino(Contestant):
    """The same ONNX graph in OpenVINO, in the type that it is asked for; int8 has quantised weights and x."""

    def __init__(self, subject: Subject, threads: int, precision: str, **more: object) -> None:
        import openvino

        nodes, tensors = _quantised(subject) if precision == "int8" else _matmuls(subject)
        hint = {"INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else precision}
        core = openvino.Core()
        read = core.read_model(_model(subject, nodes, tensors))
        compiled = core.compile_model(read, "CPU", {"INFERENCE_NUM_THREADS": threads, **hint, **more})
        self._request = compiled.create_infer_request()
        self.nbytes = sum(len(tensor.raw_data) for tensor in tensors) // (2 if precision == "bf16" else 1)

    def prepared(self, x_RI: Array) -> Callable[[], object]:
        import openvino

        self._request.set_input_tensor(openvino.Tensor(x_RI, shared_memory=True))
        return lambda: self._request.infer()

    def answer(self, x_RI: Array) -> Array:
        return np.array(self._request.infer({"x": x_RI})["y0"])


def contestants(subject: Subject, threads: int) -> dict[str, Contestant]:
    """Return all that are installed and that this CPU can run."""
    found: dict[str, Contestant] = {ORT: OnnxRuntime(subject, threads), TORCH: Torch(subject)}
    found[HALF] = OnnxRuntime(subject, threads, half=True)
    found[INTEGER] = OnnxRuntime(subject, threads, others=whole)
    found |= {name: OnnxRuntime(subject, threads, others=in_bits(bits)) for name, bits in BITS.items()}
    absent = missing()
    for name, (precision, more) in _OPENVINO.items():
        if name not in absent:
            found[name] = OpenVino(subject, threads, precision, **more)
    found[DENSE] = OnnxRuntime(subject, threads, "bf16", dense=True)
    found[ROUNDED] = OnnxRuntime(subject, threads, "bf16", level=3)
    found[WHOLE] = OnnxRuntime(subject, threads, "int8", level=4)
    return found | {name: OnnxRuntime(subject, threads, kind) for name, kind in OURS.items()}


_OPENVINO: dict[str, tuple[str, dict[str, object]]] = {
    OPENVINO: ("f32", {}),
    OPENVINO_BF16: ("bf16", {}),
    OPENVINO_INT8: ("int8", {}),
    OPENVINO_SPARSE: ("int8", SPARSE_RATE),
}


def missing() -> dict[str, str]:
    """Return who of OpenVINO cannot be measured here, and why."""
    if not find_spec("openvino"):
        return dict.fromkeys(_OPENVINO, "not installed")
    import openvino

    found, able = {}, openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in able:
        found[OPENVINO_BF16] = "this CPU has no bf16 products: it would compute in fp32"
    if "amx_int8" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        found[OPENVINO_SPARSE] = "it needs AMX"
    return found


def _quantised(subject: Subject) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return products of x in uint8, one scale for -8 to 8, and int8 weights with a scale for each output."""
    ends = {"sx": np.array(16 / 255, np.float32), "zx": np.array(128, np.uint8)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["qx"])]
    nodes.append(helper.make_node("DequantizeLinear", ["qx", "sx", "zx"], ["dx"]))
    tensors = [numpy_helper.from_array(array, name) for name, array in ends.items()]
    for i, weight in enumerate(subject.weights):
        scales_O = np.abs(weight).max(1) / np.float32(127)
        whole = np.rint(weight / scales_O[:, None]).astype(np.int8)
        nodes.append(helper.make_node("DequantizeLinear", [f"w{i}", f"s{i}"], [f"d{i}"], axis=1))
        nodes.append(helper.make_node("MatMul", ["dx", f"d{i}"], [f"y{i}"]))
        arrays = {f"w{i}": np.ascontiguousarray(whole.T), f"s{i}": scales_O}
        tensors += [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return nodes, tensors


def _made(subject: Subject, product: Product) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes, tensors = [], []
    for i, weight in enumerate(subject.weights):
        operator, domain, arrays, sizes = product("", weight)
        nodes.append(helper.make_node(operator, ["x", *(f"{end}{i}" for end in arrays)], [f"y{i}"], domain=domain, **sizes))
        tensors += [numpy_helper.from_array(array, f"{end}{i}") for end, array in arrays.items()]
    return nodes, tensors


def _matmuls(subject: Subject) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"]) for i in range(subject.copies)]
    return nodes, [numpy_helper.from_array(np.ascontiguousarray(w.T), f"w{i}") for i, w in enumerate(subject.weights)]


def _in_half(subject: Subject) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return products in fp16 of x in fp32."""
    nodes, tensors = [helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16)], []
    for i, weight in enumerate(subject.weights):
        nodes.append(helper.make_node("MatMul", ["half", f"w{i}"], [f"z{i}"]))
        nodes.append(helper.make_node("Cast", [f"z{i}"], [f"y{i}"], to=TensorProto.FLOAT))
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(weight.T.astype(np.float16)), f"w{i}"))
    return nodes, tensors


def _packed(
    subject: Subject, kind: ValueType, level: int, *, dense: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes, tensors = [], []
    for i, packed in enumerate(subject.packed(kind, dense=dense)):
        arrays = {f"v{i}": packed.values, f"p{i}": packed.positions, f"s{i}": packed.scales}
        names = ["x", *(name if array is not None else "" for name, array in arrays.items())]
        names.insert(3, "")  # no bias
        sizes = {"in_features": packed.inputs, "out_features": packed.outputs, "span": packed.span}
        attributes = sizes | {"accuracy_level": level}
        nodes.append(helper.make_node("MatMul24", names, [f"y{i}"], domain="vlmc", **attributes))
        tensors += [numpy_helper.from_array(array, name) for name, array in arrays.items() if array is not None]
        if kind == "bf16":
            next(tensor for tensor in tensors if tensor.name == f"v{i}").data_type = TensorProto.BFLOAT16
    return nodes, tensors


def _model(subject: Subject, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", subject.inputs])
    outputs = [
        helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["rows", subject.outputs]) for i in range(subject.copies)
    ]
    graph = helper.make_graph(nodes, "products", [x], outputs, tensors)
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in ("vlmc", "com.microsoft"))]
    found: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return found
