"""OnnxSession: a graph in ONNX Runtime."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlmc.runtime.errors import CheckFailed, Closed, EnvironmentLacks, InputError, one_line
from vlmc.runtime.kernels.native import REMEDY, library
from vlmc.runtime.sessions.base import Array, Session

CPU = ("CPUExecutionProvider",)
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""Short names of ONNX Runtime's execution providers; its own names are taken too."""
PACKED_KEY = "vlmc.cpu_sparse"
"""The metadata entry of a graph whose 2:4 weights are packed; its value is their type."""
NO_ONNXRUNTIME = "ONNX Runtime is not installed: pip install 'vlmc[cpu]', or 'vlmc[gpu]' where there is an NVIDIA GPU"
_NO_KERNEL = "there is no kernel for the type of the graph's weights (bf16 has none on a CPU): export it as fp32 or fp16"
_SPIN = "50"
"""Microseconds for which ONNX Runtime's threads stay awake for the next operator. By its own choice it is so long that they
keep others from a core: those that prepare questions, and other programs."""
_NUMPY = {"float": "float32", "double": "float64"}  # where ONNX Runtime's name of a type is not numpy's


class OnnxSession(Session):
    """A graph in ONNX Runtime.

    `frugal`: weights in a file of their own are mapped and stay as they are stored; every run converts what it needs, one
    weight at a time, and takes several times as long. So a graph larger than memory can be run.

    Raises:
        InputError: ONNX Runtime cannot run the file, or an input or output has a type that numpy lacks.
        EnvironmentLacks: ONNX Runtime is not installed, or lacks a provider that was asked for, or runs no part of the
            graph with the first of them; ONNX Runtime itself would fall back without a word.
        CheckFailed: by `run`, the graph cannot be run on these inputs.
        Closed: by `run`, it is closed.
    """

    def __init__(self, path: Path, providers: str | Sequence[str] = CPU, threads: int = 0, *, frugal: bool = False) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN)
        options.log_severity_level = 3
        if frugal:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.enable_cpu_mem_arena = False
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED  # by default it converts weights long before
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers = [PROVIDERS.get(name, name) for name in ((providers,) if isinstance(providers, str) else providers)]
        _check_providers(providers, onnxruntime.get_available_providers())
        kernels = library()
        if kernels is not None:
            options.register_custom_ops_library(str(kernels))
        try:
            self._session: Any = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # ONNX Runtime's own errors share no public base
            lacking = f"; {_NO_KERNEL}" if "NOT_IMPLEMENTED" in str(error) else ""
            raise InputError(f"{path} cannot be run: {one_line(error)}{lacking}") from None
        _check_providers(providers, self._session.get_providers())
        _check_used(path, providers, self._session)
        self._name = path.name
        try:
            packed = PACKED_KEY in self._session.get_modelmeta().custom_metadata_map
            self._inputs = {node.name: (_type(path, node), tuple(node.shape)) for node in self._session.get_inputs()}
            self._outputs = [node.name for node in self._session.get_outputs() if _type(path, node)]
        except UnicodeDecodeError:
            raise InputError(f"{path} is damaged: a name in it is not UTF-8") from None
        if packed and kernels is None:
            warnings.warn(f"{path} runs without its 2:4 kernels, several times slower: {REMEDY}", stacklevel=2)

    @property
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        return self._inputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._run(feeds, lambda session, typed: session.run(self._outputs, typed))

    def run_in_place(self, feeds: Mapping[str, Array], places: Mapping[str, Array]) -> dict[str, Array]:
        return self._run(feeds, lambda session, typed: self._bound(session, typed, places))

    def _bound(self, session: Any, typed: Mapping[str, Array], places: Mapping[str, Array]) -> list[Array]:
        """Run with outputs in these arrays; where one is an input too, the operators that write into it copy nothing."""
        binding = session.io_binding()
        for name, array in typed.items():
            binding.bind_cpu_input(name, array)
        for name in self._outputs:
            if name in places:
                array = places[name]
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            else:
                binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        found = zip(self._outputs, binding.get_outputs(), strict=True)
        return [places[name] if name in places else value.numpy() for name, value in found]

    def _run(self, feeds: Mapping[str, Array], work: Callable[[Any, Mapping[str, Array]], list[Array]]) -> dict[str, Array]:
        session = self._session  # another thread may close it meanwhile
        if session is None:
            raise Closed(f"{self._name} is closed: load the model again")
        typed = {name: np.ascontiguousarray(feeds[name], dtype=kind) for name, (kind, _) in self._inputs.items()}
        try:
            return dict(zip(self._outputs, work(session, typed), strict=True))
        except Exception as error:  # as above
            sizes = ", ".join(f"{name} {value.shape}" for name, value in list(typed.items())[:3])
            raise CheckFailed(f"{self._name} cannot be run on {sizes}: {one_line(error)}") from None

    def close(self) -> None:
        self._session = None


def import_onnxruntime() -> Any:
    """Return the module `onnxruntime`, which comes with either of two packages.

    Raises:
        EnvironmentLacks: neither is installed, or the module cannot be loaded.
    """
    try:
        import onnxruntime
        from onnxruntime import InferenceSession  # noqa: F401  # gone after one of the two packages was uninstalled
    except ImportError as error:
        if error.name == "onnxruntime" and isinstance(error, ModuleNotFoundError):
            raise EnvironmentLacks(NO_ONNXRUNTIME) from None
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'vlmc[cpu]' or 'vlmc[gpu]'"
        raise EnvironmentLacks(f"ONNX Runtime cannot be loaded ({one_line(error)}): {remedy}") from None
    return onnxruntime


def _type(path: Path, node: Any) -> np.dtype[Any]:
    """Return numpy's type for `tensor(float)` and its like."""
    found = re.fullmatch(r"tensor\((bool|float|double|float16|u?int(?:8|16|32|64))\)", node.type)
    if not found:
        raise InputError(f"{path}: {node.name} is a {node.type}, which numpy lacks: export it as fp32 or fp16")
    return np.dtype(_NUMPY.get(found[1], found[1]))


def _check_providers(asked: Sequence[str], present: Sequence[str]) -> None:
    missing = [provider for provider in asked if provider not in present]
    if missing:
        raise EnvironmentLacks(
            f"ONNX Runtime has no {missing[0]} here, only {', '.join(present)}: "
            "for GPUs 'pip uninstall -y onnxruntime', then 'pip install vlmc[gpu]' with CUDA and cuDNN, "
            "or use CPUExecutionProvider"
        )


def _check_used(path: Path, asked: Sequence[str], session: Any) -> None:
    """Raise EnvironmentLacks where the first provider got no part of the graph: a later one runs it instead."""
    assigned = getattr(session, "get_provider_graph_assignment_info", None)  # ONNX Runtime before 1.24 does not tell
    used = {part.ep_name for part in assigned()} if assigned else set(asked)
    if asked and asked[0] not in (*used, *CPU):
        raise EnvironmentLacks(
            f"{asked[0]} runs no part of {path.name}, only {', '.join(sorted(used))} does: install its driver and "
            "libraries, or use CPUExecutionProvider"
        )
