"""Turns graph descriptions into ONNX graphs and TensorRT engines, without knowing model families.

A new backend is a folder with a descriptor, and a line in `BACKENDS`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from vlmc.exporters import onnx, tensorrt
from vlmc.exporters.backend import Backend, resolve
from vlmc.runtime.errors import InputError

if TYPE_CHECKING:
    from vlmc.exporters.base import Exporter

__all__ = ["BACKENDS", "Backend", "find", "of_file", "resolve"]

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (onnx.BACKEND, tensorrt.BACKEND)}
"""Every backend by its name."""


def find(name: str) -> "Exporter":
    """Return the exporter of a backend.

    Raises:
        InputError: there is no such backend.
        EnvironmentLacks: a package that it needs is missing.
    """
    if name not in BACKENDS:
        raise InputError(f"unknown backend {name!r}: use one of {', '.join(BACKENDS)}")
    exporter: Exporter = resolve(BACKENDS[name].exporter)()
    exporter.requires()
    return exporter


def of_file(path: Path) -> Backend | None:
    """Return the backend that writes files with this suffix; None: no backend does."""
    return next((backend for backend in BACKENDS.values() if path.suffix == backend.suffix), None)
