"""Session: a graph that is ready to run, whatever runs it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.errors import CheckFailed, EnvironmentLacks, InputError

Array = NDArray[Any]
CPU = ("CPUExecutionProvider",)
_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
}


class Session(ABC):
    """A loaded graph; a context manager that frees it at the end. `run` may be called from several threads."""

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        """Name -> type and shape of every input; a dynamic dimension is given by its name."""

    @abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name; feeds are converted to the types of the inputs."""

    @abstractmethod
    def close(self) -> None:
        """Free the graph; it cannot run any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class OnnxSession(Session):
    """A graph in ONNX Runtime.

    Raises:
        InputError: the file is no graph that ONNX Runtime can run.
        EnvironmentLacks: a provider that was asked for is not there; ONNX Runtime itself falls back in silence.
        CheckFailed: by `run`, the graph cannot be run on such inputs.
    """

    def __init__(self, path: Path, providers: Sequence[str] = CPU, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        _check_providers(providers, onnxruntime.get_available_providers())
        try:
            self._session: Any = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # ONNX Runtime's own errors share no public base
            raise InputError(f"{path} cannot be run: {_one_line(error)}") from None
        _check_providers(providers, self._session.get_providers())
        self._name = path.name
        self._inputs = {node.name: (_TYPES[node.type], tuple(node.shape)) for node in self._session.get_inputs()}
        self._outputs = [node.name for node in self._session.get_outputs()]

    @property
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        return self._inputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        typed = {name: np.ascontiguousarray(feeds[name], dtype=kind) for name, (kind, _) in self._inputs.items()}
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, typed), strict=True))
        except Exception as error:  # as above
            sizes = ", ".join(f"{name} {value.shape}" for name, value in list(typed.items())[:3])
            raise CheckFailed(f"{self._name} cannot be run on {sizes}: {_one_line(error)}") from None

    def close(self) -> None:
        self._session = None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _check_providers(asked: Sequence[str], present: Sequence[str]) -> None:
    missing = [provider for provider in asked if provider not in present]
    if missing:
        raise EnvironmentLacks(
            f"ONNX Runtime has no {missing[0]} here, only {', '.join(present)}: "
            "for GPUs 'pip install onnxruntime-gpu' with CUDA and cuDNN, or use CPUExecutionProvider"
        )
