"""Turns graph descriptions into ONNX graphs and TensorRT engines; knows no model family.

A new backend is a subpackage with an `Exporter` and one line in `BACKENDS`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from vlmc.runtime.errors import InputError

if TYPE_CHECKING:
    from vlmc.exporters.base import Exporter

__all__ = ["BACKENDS", "find"]

BACKENDS = {
    "onnx": ("vlmc.exporters.onnx.exporter", "OnnxExporter"),
    "tensorrt": ("vlmc.exporters.tensorrt.exporter", "TensorrtExporter"),
}
"""Backend -> module and class of its exporter; imported on use, for they import torch."""


def find(backend: str) -> "Exporter":
    """Return the exporter of a backend.

    Raises:
        InputError: there is none of that name.
        EnvironmentLacks: a package that it needs is not installed.
    """
    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}: use one of {', '.join(BACKENDS)}")
    module, name = BACKENDS[backend]
    exporter: Exporter = getattr(import_module(module), name)()
    exporter.requires()
    return exporter
