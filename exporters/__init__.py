"""Turns graph descriptions into ONNX graphs and TensorRT engines; knows no model family.

A new backend is a subpackage with a descriptor, and one line in `BACKENDS`.
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
        InputError: there is none of that name.
        EnvironmentLacks: a package that it needs is not installed.
    """
    if name not in BACKENDS:
        raise InputError(f"unknown backend {name!r}: use one of {', '.join(BACKENDS)}")
    exporter: Exporter = resolve(BACKENDS[name].exporter)()
    exporter.requires()
    return exporter


def of_file(path: Path) -> Backend | None:
    """Return the backend that writes files of this ending, None where there is none."""
    return next((backend for backend in BACKENDS.values() if path.suffix == backend.suffix), None)
