"""The export's report as a table."""

from collections.abc import Mapping
from typing import Any

from vlmc.exporters.backend import Table


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Return what was exported, one graph per row."""
    rows = [
        (
            graph["graph"],
            f"{graph['precision']}, {graph['packed']} layers 2:4 {graph['cpu_sparse']}"
            if graph["packed"]
            else graph["precision"],
            f"{graph['bytes'] / 1e6:.2f} MB",
            "not compared" if graph["max_error"] is None else f"{graph['max_error']:.1e} of {graph['tolerance']:.0e}",
            f"{sum(layer['violation'] is None for layer in graph['layers'])} of {len(graph['layers'])}",
        )
        for graph in report["graphs"]
    ]
    notes = list(dict.fromkeys(graph["note"] for graph in report["graphs"] if graph["note"]))
    return [Table(("graph", "type", "size", "error against torch", "layers that hold"), rows, notes)]
