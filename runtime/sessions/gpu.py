"""Memory of an NVIDIA GPU for what runs there, by NVIDIA's own binding of CUDA (`cuda-bindings`)."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike

from vlmc.runtime.errors import CheckFailed, EnvironmentLacks, one_line
from vlmc.runtime.sessions.base import Array

_ALL = (1 << 64) - 1  # bytes that a pool keeps of what was freed, instead of giving them back at every synchronisation


@final
class Gpu:
    """The first GPU, with a stream of its own on it; what is done there is done in the order in which it was asked for.

    `architecture` is `sm90` and its like, `stream` the address of the stream.

    Raises:
        EnvironmentLacks: cuda-bindings is not installed, or there is no GPU, or no driver for it.
        CheckFailed: by everything else, CUDA's own error.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver, runtime
        except (ImportError, OSError) as error:
            told = f"CUDA's Python binding cannot be loaded ({one_line(error)}): pip install cuda-bindings"
            raise EnvironmentLacks(told) from None
        self._cuda: Any = runtime
        try:
            has = runtime.cudaDeviceAttr
            major = self._do(runtime.cudaDeviceGetAttribute, has.cudaDevAttrComputeCapabilityMajor, 0)
            minor = self._do(runtime.cudaDeviceGetAttribute, has.cudaDevAttrComputeCapabilityMinor, 0)
            self._pooled = bool(self._do(runtime.cudaDeviceGetAttribute, has.cudaDevAttrMemoryPoolsSupported, 0))
            if self._pooled:
                pool = self._do(runtime.cudaDeviceGetDefaultMemPool, 0)
                keeps = runtime.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
                self._do(runtime.cudaMemPoolSetAttribute, pool, keeps, driver.cuuint64_t(_ALL))
            self.stream = int(self._do(runtime.cudaStreamCreate))
            weakref.finalize(self, runtime.cudaStreamDestroy, self.stream).atexit = False  # CUDA may be gone by then
        except CheckFailed as error:
            raise EnvironmentLacks(f"there is no NVIDIA GPU that can be used: {error}; install its driver") from None
        self.architecture = f"sm{major}{minor}"

    def array(self, shape: Sequence[int], kind: DTypeLike) -> "GpuArray":
        """Return an array whose values are not set."""
        return GpuArray(self, tuple(shape), np.dtype(kind))

    def put(self, array: Array) -> "GpuArray":
        """Return a copy of an array on the GPU."""
        made, whole = self.array(array.shape, array.dtype), np.ascontiguousarray(array)
        if whole.nbytes:
            self._copy(made.address, whole.ctypes.data, whole.nbytes, self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
            self.wait()  # `whole` may be gone, or changed, after this
        return made

    def get(self, array: "GpuArray") -> Array:
        """Return a copy of an array in the computer's own memory."""
        made: Array = np.empty(array.shape, array.dtype)
        if made.nbytes:
            self._copy(made.ctypes.data, array.address, made.nbytes, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
            self.wait()
        return made

    def wait(self) -> None:
        """Wait until all is done that was asked for."""
        self._do(self._cuda.cudaStreamSynchronize, self.stream)

    def allocate(self, size: int) -> int:
        """Return the address of so many bytes, of one at least: what is empty has an address, too."""
        size = max(1, size)
        taken = (self._cuda.cudaMallocAsync, size, self.stream) if self._pooled else (self._cuda.cudaMalloc, size)
        return int(self._do(*taken))

    def free(self, address: int) -> None:
        """Give memory back, once all is done that was asked for before."""
        if self._pooled:
            self._cuda.cudaFreeAsync(address, self.stream)
        else:
            self._cuda.cudaFree(address)

    def _copy(self, to: int, source: int, size: int, kind: Any) -> None:
        self._do(self._cuda.cudaMemcpyAsync, to, source, size, kind, self.stream)

    def _do(self, call: Callable[..., Any], *given: Any) -> Any:
        """Return what a function of CUDA gives beside its error, which is raised if it is one."""
        error, *found = call(*given)
        if error != self._cuda.cudaError_t.cudaSuccess:
            told = self._cuda.cudaGetErrorString(error)[1]
            text = told.decode() if isinstance(told, bytes) else str(told)
            raise CheckFailed(f"the GPU cannot go on: {text} ({call.__name__})")
        return found[0] if found else None


@final
class GpuArray:
    """An array on a GPU, which is read into the computer's memory when numpy asks for its values."""

    def __init__(self, gpu: Gpu, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self.address = gpu.allocate(self.nbytes)
        self._gpu = gpu
        weakref.finalize(self, gpu.free, self.address).atexit = False  # as above

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("an array on a GPU cannot be seen without a copy")
        found = self._gpu.get(self)
        return found if dtype is None else found.astype(dtype, copy=False)
