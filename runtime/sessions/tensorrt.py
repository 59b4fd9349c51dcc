"""TensorrtSession: a graph in an engine that TensorRT, or TensorRT for RTX, has built for this GPU."""

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, cast, final

import numpy as np

from vlmc.runtime.errors import CheckFailed, Closed, EnvironmentLacks, InputError, one_line
from vlmc.runtime.sessions.base import PRESENT, Array, Session
from vlmc.runtime.sessions.gpu import Gpu, GpuArray
from vlmc.runtime.sessions.onnx import CPU

REPORT = "build.json"
"""What the export tells of the engines in its folder, the package that built them among it."""
_REMEDIES = {
    "tensorrt": "pip install 'vlmc[engines]'",
    "tensorrt_rtx": "pip install tensorrt-rtx cuda-bindings",
}
"""How the packages that build engines are installed where no torch is wanted."""


@final
class TensorrtSession(Session):
    """A graph in a TensorRT engine. `path` is its file without the GPU: `a.sm90.engine` beside it is opened for `a.engine`.

    Runs take turns. What a decoder gives as `present.*` stays on the GPU, and is read from there if numpy asks for it; given
    to the next run as it is, it is not copied.

    Raises:
        InputError: there is no engine for this GPU, or it cannot be opened; or providers were asked for, which are ONNX
            Runtime's.
        EnvironmentLacks: there is no GPU, or TensorRT is not installed.
        CheckFailed: by `run`, the inputs are not of the sizes that the engine was built for, or the GPU fails.
        Closed: by `run`, it is closed.
    """

    def __init__(self, path: Path, providers: str | Sequence[str] = CPU, threads: int = 0) -> None:
        if tuple(providers) != CPU:
            raise InputError("providers are ONNX Runtime's: TensorRT's engines run on the GPU, leave them out")
        trt = _import(path.parent)
        self._gpu = Gpu()
        file = _find(path, self._gpu.architecture)
        self._name, self._lock = file.name, Lock()
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))  # outlives its engines
        self._engine = _opened(trt, self._runtime, file)
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise CheckFailed(f"{file} cannot run: the GPU has too little memory for it")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        kinds = {name: _type(trt, file, name, self._engine.get_tensor_dtype(name)) for name in names}
        given = {name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self._inputs = {name: (kinds[name], _shape(self._engine, name)) for name in names if name in given}
        self._outputs = {name: kinds[name] for name in names if name not in given}

    @property
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        return self._inputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with self._lock:
            if self._context is None:
                raise Closed(f"{self._name} is closed: load the model again")
            there = {name: self._given(name, feeds[name]) for name in self._inputs}  # until the engine has read it
            made = {name: self._made(name) for name in self._outputs}
            if not self._context.execute_async_v3(self._gpu.stream):
                raise CheckFailed(f"{self._name} cannot be run: TensorRT says no more than that")
            self._gpu.wait()
            del there
            return {
                name: cast("Array", array) if name.startswith(PRESENT) else np.asarray(array) for name, array in made.items()
            }

    def close(self) -> None:
        with self._lock:
            self._context = self._engine = None

    def _given(self, name: str, array: Array | GpuArray) -> GpuArray:
        """Give the engine an input, copied to the GPU if it is not there yet."""
        kind = self._inputs[name][0]
        there = array if isinstance(array, GpuArray) and array.dtype == kind else self._gpu.put(np.asarray(array, kind))
        if not self._context.set_input_shape(name, there.shape):
            least, _, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, 0))
            raise CheckFailed(f"{self._name} was built for {name} from {least} to {most}, and this is {there.shape}")
        self._context.set_tensor_address(name, there.address)
        return there

    def _made(self, name: str) -> GpuArray:
        """Give the engine room for an output; all inputs have been given."""
        made = self._gpu.array(tuple(self._context.get_tensor_shape(name)), self._outputs[name])
        self._context.set_tensor_address(name, made.address)
        return made


def _import(folder: Path) -> Any:
    """Return the TensorRT that built the engines of a folder: no other one opens them."""
    try:
        package = json.loads((folder / REPORT).read_text(encoding="utf-8"))["package"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder / REPORT} cannot be read: {one_line(error)}; export again") from None
    if package not in _REMEDIES:
        raise InputError(f"{folder / REPORT}: {package!r} is no TensorRT; export again")
    try:
        return import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # also: NVIDIA's libraries do not load
        told = f"the engines were built by {package}, which cannot be loaded ({one_line(error)}): {_REMEDIES[package]}"
        raise EnvironmentLacks(told) from None


def _find(path: Path, gpu: str) -> Path:
    found = {file.name.split(".")[-2]: file for file in path.parent.glob(f"{path.stem}.*.engine")}
    for name in (gpu, "local"):  # local: whoever built it could not tell the GPU of the machine
        if name in found:
            return found[name]
    there = ", ".join(sorted(found)) or "no GPU"
    raise InputError(f"{path.parent} has engines for {there}, this GPU is {gpu}: export there again, with --gpu {gpu}")


def _opened(trt: Any, runtime: Any, file: Path) -> Any:
    try:
        engine = runtime.deserialize_cuda_engine(file.read_bytes())
    except (OSError, TypeError, RuntimeError) as error:
        raise InputError(f"{file} cannot be opened: {one_line(error)}; export again") from None
    if engine is None:
        raise InputError(
            f"{file} cannot be opened by {trt.__name__} {trt.__version__}: it was built by another version or for another "
            "GPU, or it is damaged; export again"
        )
    return engine


def _shape(engine: Any, name: str) -> tuple[int | str, ...]:
    """Return an input's shape; TensorRT keeps no names of dynamic dimensions."""
    if engine.is_shape_inference_io(name):
        raise InputError(f"{name} is read by the computer, not by the GPU: vlmc builds no such engines; export again")
    return tuple(int(size) if size >= 0 else f"{name}_{axis}" for axis, size in enumerate(engine.get_tensor_shape(name)))


def _type(trt: Any, file: Path, name: str, kind: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(trt.nptype(kind))
    except TypeError:
        raise InputError(f"{file}: {name} is a {kind}, which numpy lacks: export it as fp32 or fp16") from None
    return found
