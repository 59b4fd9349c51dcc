"""OnnxSession: a graph in ONNX Runtime."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np

from vlmc.runtime.errors import CheckFailed, Closed, EnvironmentLacks, InputError, one_line
from vlmc.runtime.kernels.native import REMEDY, WithoutSubnormals, library
from vlmc.runtime.sessions.base import Array, Bound, Session

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
Declared = Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]
Size = Callable[[Mapping[str, Array]], list[int]]
Made = tuple[np.dtype[Any], Size]
_NUMPY = {"float": "float32", "double": "float64"}  # where ONNX Runtime's name of a type is not numpy's


class OnnxSession(Session):
    """A graph in ONNX Runtime.

    `frugal`: weights in a file of their own are mapped and stay as they are stored; every run converts what it needs, one
    weight at a time, and takes several times as long. So a graph larger than memory can be run. `times`: what the name of a
    JSON file begins with that is written when the session is closed, of the time that each operator took in each run.
    `is_on_cpu`: all of it runs on the CPU, which reads inputs where they lie.

    Raises:
        InputError: ONNX Runtime cannot run the file, or an input or output has a type that numpy lacks.
        EnvironmentLacks: ONNX Runtime is not installed, or lacks a provider that was asked for, or runs no part of the
            graph with the first of them; ONNX Runtime itself would fall back without a word.
        CheckFailed: by `run`, the graph cannot be run on these inputs.
        Closed: by `run`, it is closed.
    """

    def __init__(
        self,
        path: Path,
        providers: str | Sequence[str] = CPU,
        threads: int = 0,
        *,
        frugal: bool = False,
        times: Path | None = None,
    ) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN)
        options.log_severity_level = 3
        self._timed = times is not None
        if times is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(times)
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
            options.add_session_config_entry("session.set_denormal_as_zero", "1")  # on its own threads
        try:
            with WithoutSubnormals():  # the first session of a process changes the thread that makes it, and leaves it so
                self._session: Any = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # ONNX Runtime's own errors share no public base
            lacking = f"; {_NO_KERNEL}" if "NOT_IMPLEMENTED" in str(error) else ""
            raise InputError(f"{path} cannot be run: {one_line(error)}{lacking}") from None
        _check_providers(providers, self._session.get_providers())
        _check_used(path, providers, self._session)
        self._name = path.name
        self.is_on_cpu: bool = self._session.get_providers() == list(CPU)
        try:
            packed = PACKED_KEY in self._session.get_modelmeta().custom_metadata_map
            self._inputs = {node.name: (_type(path, node), tuple(node.shape)) for node in self._session.get_inputs()}
            self._outputs = {node.name: (_type(path, node), tuple(node.shape)) for node in self._session.get_outputs()}
        except UnicodeDecodeError:
            raise InputError(f"{path} is damaged: a name in it is not UTF-8") from None
        if packed and kernels is None:
            warnings.warn(f"{path} runs without its 2:4 kernels, several times slower: {REMEDY}", stacklevel=2)

    @property
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        return self._inputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        typed = {name: np.ascontiguousarray(feeds[name], dtype=kind) for name, (kind, _) in self._inputs.items()}
        with self.ready(feeds) as session:
            return dict(zip(self._outputs, session.run(list(self._outputs), typed), strict=True))

    def bound(self, places: Mapping[str, Array]) -> Bound:
        others = {name: declared for name, declared in self._outputs.items() if name not in places}
        made = {name: (kind, _sized(self._name, shape, self._inputs)) for name, (kind, shape) in others.items()}
        with self.ready(places) as session:
            return OnnxBound(self, session.io_binding(), places, made)

    @contextmanager
    def ready(self, feeds: Mapping[str, Array]) -> Iterator[Any]:
        """Lend ONNX Runtime's session for a run; its errors are told in a line."""
        session = self._session  # another thread may close it meanwhile
        if session is None:
            raise Closed(f"{self._name} is closed: load the model again")
        try:
            with WithoutSubnormals():
                yield session
        except Exception as error:  # as above
            sizes = ", ".join(f"{name} {np.shape(value)}" for name, value in list(feeds.items())[:3])
            raise CheckFailed(f"{self._name} cannot be run on {sizes}: {one_line(error)}") from None

    def close(self) -> None:
        if self._timed and self._session is not None:
            self._session.end_profiling()  # who is bound to the session keeps it, and its file unfinished
        self._session = None


@final
class OnnxBound(Bound):
    """A graph in ONNX Runtime, bound to arrays: where one is an input too, the operators that write into it copy nothing.

    An input that is the array of the run before stays bound as it is; for a cache in place, that is most of them.
    """

    def __init__(self, session: OnnxSession, binding: Any, places: Mapping[str, Array], made: Mapping[str, Made]) -> None:
        super().__init__(session)
        self._ready, self._binding, self._places, self._made = session.ready, binding, places, made
        self._stays = session.is_on_cpu  # other providers copy an input when it is bound
        self._at: dict[str, Array] = {}
        for name, array in places.items():
            self._put(name, array)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with self._ready(feeds) as session:
            for name, (kind, _) in self._session.inputs.items():
                if self._at.get(name) is not feeds[name]:
                    array = np.ascontiguousarray(feeds[name], dtype=kind)
                    self._binding.bind_cpu_input(name, array)
                    if self._stays:
                        self._at[name] = array
            made = {name: np.empty(size(feeds), kind) for name, (kind, size) in self._made.items()}
            for name, array in made.items():
                self._put(name, array)
            session.run_with_iobinding(self._binding)
            return made | dict(self._places)

    def _put(self, name: str, array: Array) -> None:
        self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


def _sized(path: str, shape: Sequence[int | str], inputs: Declared) -> Size:
    """Return what tells the size of an output from the inputs, whose dimensions have the same names.

    Raises:
        InputError: no input has one of its dimensions.
    """
    axes = {size: (name, axis) for name, (_, sizes) in inputs.items() for axis, size in enumerate(sizes)}
    unknown = [size for size in shape if not isinstance(size, int) and size not in axes]
    if unknown:
        raise InputError(f"{path}: no input has the dimension {unknown[0]} of an output: export again")
    found = [size if isinstance(size, int) else axes[size] for size in shape]
    return lambda feeds: [one if isinstance(one, int) else feeds[one[0]].shape[one[1]] for one in found]


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
