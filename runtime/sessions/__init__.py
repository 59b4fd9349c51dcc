"""Sessions: what runs the graphs of each backend."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from vlmc.runtime.sessions.base import PRESENT, Array, Bound, Session
from vlmc.runtime.sessions.onnx import CPU, NO_ONNXRUNTIME, PACKED_KEY, PROVIDERS, OnnxSession, import_onnxruntime
from vlmc.runtime.sessions.tensorrt import TensorrtSession

Opens = Callable[[Path, str | Sequence[str], int], Session]
"""Loads a graph's file, given the execution providers and the number of threads."""


class Runs(NamedTuple):
    """What runs a backend's graphs: the suffix of their files, and what opens one. `code`: they may hold code."""

    suffix: str
    opens: Opens
    code: bool = False


SESSIONS = {"onnx": Runs(".onnx", OnnxSession), "tensorrt": Runs(".engine", TensorrtSession, code=True)}
"""By the name of the backend."""

__all__ = [
    "CPU",
    "NO_ONNXRUNTIME",
    "PACKED_KEY",
    "PRESENT",
    "PROVIDERS",
    "SESSIONS",
    "Array",
    "Bound",
    "OnnxSession",
    "Opens",
    "Runs",
    "Session",
    "TensorrtSession",
    "import_onnxruntime",
]
