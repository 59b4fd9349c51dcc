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
    return [*onnx.tables(report), Table(header, rows, notes), *(_layers(one) for one in engines if _is_known(one))]


def _is_known(engine: Mapping[str, Any]) -> bool:
    return any(layer["chosen"] is not None for layer in engine["layers"])


def _layers(engine: Mapping[str, Any]) -> Table:
    """Return an engine's weights, one per row: the build chose their tactics."""
    rows = [
        (one["layer"], f"{one['inputs']} -> {one['outputs']}", one["rows"] or "?", *_chosen_by(one))
        for one in engine["layers"]
    ]
    return Table((engine["file"], "size", "rows at OPT", "eligible", "sparse", "tactic", "why not"), rows)


def _chosen_by(layer: Mapping[str, Any]) -> tuple[str, ...]:
    said = {True: "yes", False: "no", None: "?"}
    return said[layer["eligible"]], said[layer["chosen"]], layer["tactic"] or "?", layer["why"] or ""


def _chosen(layers: Sequence[str] | None) -> str:
    return "not known" if layers is None else str(len(layers))
