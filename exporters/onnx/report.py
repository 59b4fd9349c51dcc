"""The export's report as a table."""

from collections.abc import Mapping
from typing import Any

from vlmc.exporters.backend import Table


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Return what was exported, one graph per row."""
    rows = [
        (
            graph["graph"],
            _type(graph),
            f"{graph['bytes'] / 1e6:.2f} MB",
            f"{graph['max_error']:.1e} of {graph['tolerance']:.0e}",
            f"{sum(layer['violation'] is None for layer in graph['layers'])} of {len(graph['layers'])}",
        )
        for graph in report["graphs"]
    ]
    return [Table(("graph", "type", "size", "error against torch", "layers that hold"), rows)]


def _type(graph: Mapping[str, Any]) -> str:
    kind, packed, dense = graph["cpu_sparse"], graph["packed"], graph["dense"]
    counts = [f"{packed} layers 2:4 {kind}"] * bool(packed) + [f"{dense} weights dense {kind}"] * bool(dense)
    return ", ".join([graph["precision"], *counts])
