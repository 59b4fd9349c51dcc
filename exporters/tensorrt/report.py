"""The build report as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from vlmc.exporters.backend import Table
from vlmc.exporters.onnx import report as onnx


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Return the graphs that engines were built from, then the engines, one per row."""
    engines = report["engines"]
    rows = [
        (one["file"], one["gpu"], f"{one['bytes'] / 1e6:.2f} MB", len(one["eligible"]), _chosen(one["log_chosen"]))
        for one in engines
    ]
    notes = list(dict.fromkeys(one["note"] for one in engines if one["note"]))
    header = ("engine", "gpu", "size", "eligible layers", "chosen sparse")
    return [*onnx.tables(report), Table(header, rows, notes)]


def _chosen(layers: Sequence[str] | None) -> str:
    return "not known" if layers is None else str(len(layers))
