"""A stand-in for an NVIDIA GPU: CUDA's memory in the computer's own, and engines that ONNX Runtime runs.

It has what vlmc calls of `cuda.bindings.runtime` and `tensorrt`, by the names and in the forms that they document, and it
fails where they would: memory that was freed is not there, a shape outside of the profile is refused, an input without an
address is an error. It does not show that NVIDIA's own behave so.
"""

import ctypes
import enum
import types
from typing import Any

import numpy as np
import onnxruntime

MOST = 64
"""The largest size of a dynamic dimension in every engine's profile."""


class Cuda:
    """`cuda.bindings.runtime` on a GPU of compute capability 9.0."""

    cudaError_t = enum.Enum("cudaError_t", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2, "cudaErrorInvalidValue": 1})
    cudaMemcpyKind = enum.Enum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
    cudaDeviceAttr = enum.Enum(
        "cudaDeviceAttr",
        {
            "cudaDevAttrComputeCapabilityMajor": 75,
            "cudaDevAttrComputeCapabilityMinor": 76,
            "cudaDevAttrMemoryPoolsSupported": 115,
        },
    )
    cudaMemPoolAttr = enum.Enum("cudaMemPoolAttr", {"cudaMemPoolAttrReleaseThreshold": 4})

    def __init__(self, *, pools: bool = True, room: int = 1 << 30) -> None:
        self.pools, self.room = pools, room
        self.held: dict[int, Any] = {}
        self.uploaded = self.streams = 0

    def cudaGetErrorString(self, error: Any) -> tuple[Any, bytes]:
        return self.cudaError_t.cudaSuccess, {2: b"out of memory", 1: b"invalid argument"}[error.value]

    def cudaDeviceGetAttribute(self, attribute: Any, device: int) -> tuple[Any, int]:
        return self._done({75: 9, 76: 0, 115: int(self.pools)}[attribute.value])

    def cudaDeviceGetDefaultMemPool(self, device: int) -> tuple[Any, str]:
        assert self.pools
        return self._done("pool")

    def cudaMemPoolSetAttribute(self, pool: str, attribute: Any, value: int) -> tuple[Any]:
        assert (pool, value) == ("pool", (1 << 64) - 1)
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Any, int]:
        self.streams += 1
        return self._done(7)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any]:
        self.streams -= 1
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        return (self.cudaError_t.cudaSuccess,)

    def cudaMallocAsync(self, size: int, stream: int) -> tuple[Any, int]:
        assert self.pools
        return self.cudaMalloc(size)

    def cudaMalloc(self, size: int) -> tuple[Any, int]:
        if size + sum(map(ctypes.sizeof, self.held.values())) > self.room:
            return self.cudaError_t.cudaErrorMemoryAllocation, 0
        memory = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(memory)] = memory
        return self._done(ctypes.addressof(memory))

    def cudaFreeAsync(self, address: int, stream: int) -> tuple[Any]:
        return self.cudaFree(address)

    def cudaFree(self, address: int) -> tuple[Any]:
        del self.held[address]
        return (self.cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: Any, stream: int) -> tuple[Any]:
        there = to if kind is self.cudaMemcpyKind.cudaMemcpyHostToDevice else source
        if there not in self.held or ctypes.sizeof(self.held[there]) < size:
            return (self.cudaError_t.cudaErrorInvalidValue,)
        self.uploaded += size * (there == to)
        ctypes.memmove(to, source, size)
        return (self.cudaError_t.cudaSuccess,)

    def _done(self, value: Any) -> tuple[Any, Any]:
        return self.cudaError_t.cudaSuccess, value


def tensorrt(cuda: Cuda) -> types.ModuleType:
    """Return a `tensorrt` whose engines are ONNX files."""
    mode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])

    class Logger:
        ERROR = 1

        def __init__(self, level: int) -> None: ...

    class Runtime:
        def __init__(self, logger: Logger) -> None: ...

        def deserialize_cuda_engine(self, data: bytes) -> "Engine | None":
            return None if data.startswith(b"damaged") else Engine(data, cuda, mode)

    def nptype(kind: str) -> type:
        if kind not in _TYPES:
            raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
        return _TYPES[kind]

    module = types.ModuleType("tensorrt")
    vars(module).update(__version__="10.3.0", Logger=Logger, Runtime=Runtime, TensorIOMode=mode, nptype=nptype)
    return module


_TYPES: dict[str, type] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


class Engine:
    """`ICudaEngine`."""

    def __init__(self, data: bytes, cuda: Cuda, mode: Any) -> None:
        self.session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        self.cuda, self._mode = cuda, mode
        self.ends = {end.name: end for end in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.given = [end.name for end in self.session.get_inputs()]
        self.num_io_tensors = len(self.ends)

    def get_tensor_name(self, index: int) -> str:
        return list(self.ends)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self._mode.INPUT if name in self.given else self._mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.ends[name].type)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.ends[name].shape)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        shape = self.get_tensor_shape(name)
        return [tuple(some if size < 0 else size for size in shape) for some in (0, 8, MOST)]

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def create_execution_context(self) -> "Context":
        return Context(self)


class Context:
    """`IExecutionContext`. ONNX Runtime knows the shapes of outputs once it has run, so it runs when they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._outputs: dict[str, Any] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        fits = len(shape) == len(most) and all(a <= size <= b for a, size, b in zip(least, shape, most, strict=True))
        self._shapes[name] = shape
        self._outputs.clear()
        return fits

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory in self._engine.cuda.held, f"{name} is not on the GPU"
        self._addresses[name] = memory
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if not self._outputs:
            names = [end.name for end in self._engine.session.get_outputs()]
            feeds = {name: self._read(name) for name in self._engine.given}
            self._outputs = dict(zip(names, self._engine.session.run(names, feeds), strict=True))
        return tuple(self._outputs[name].shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        for name, array in self._outputs.items():
            memory = self._engine.cuda.held[self._addresses.pop(name)]
            assert ctypes.sizeof(memory) >= array.nbytes
            ctypes.memmove(memory, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        for name in self._engine.given:
            del self._addresses[name]  # each run has to give its own
        return True

    def _read(self, name: str) -> Any:
        kind = np.dtype(_TYPES[self._engine.get_tensor_dtype(name)])
        memory, shape = self._engine.cuda.held[self._addresses[name]], self._shapes[name]
        return np.frombuffer(memory, kind, int(np.prod(shape))).reshape(shape).copy()
