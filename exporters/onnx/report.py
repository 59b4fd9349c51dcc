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
            "not compared" if graph["max_error"] is None else f"{graph['max_error']:.1e} of {graph['tolerance']:.0e}",
            f"{sum(layer['violation'] is None for layer in graph['layers'])} of {len(graph['layers'])}",
        )
        for graph in report["graphs"]
    ]
    return [Table(("graph", "type", "size", "error against torch", "layers that hold"), rows, _notes(report))]


def _notes(report: Mapping[str, Any]) -> list[str]:
    """Say what was not compared, what packing saves, and what --cpu-sparse auto took, and why."""
    notes = list(dict.fromkeys(graph["note"] for graph in report["graphs"] if graph["note"]))
    rounding = [graph["rounding_error"] for graph in report["graphs"] if graph["rounding_error"]]
    if rounding:
        notes.append(f"rounding changes torch's own outputs by up to {max(rounding):.1e} of their largest value")
    packed, bf16 = (sum(graph[key] for graph in report["graphs"]) for key in ("packed_bytes", "bf16_bytes"))
    if packed:
        notes.append(f"the 2:4 weights take {packed / 1e6:.2f} MB, {packed / bf16:.3f} of what they would dense in bf16")
    stored = [graph["stored"] for graph in report["graphs"] if graph["stored"]]
    if stored:
        packed, dense = (sum(one[key] for one in stored) for key in ("packed_bytes", "dense_bytes"))
        count = sum(one["weights"] for one in stored)
        notes.append(
            f"{count} 2:4 weights are stored packed: {packed / 1e6:.2f} MB, {packed / dense:.4f} of what they take dense"
        )
    quantised = report.get("rounding")
    if quantised:
        means = [f"{quantised['mean'][name]:.1e}" for name in ("error", "nearest")]
        notes.append(
            f"{len(quantised['layers'])} layers rounded by {quantised['method']} on {quantised['samples']} samples: squared "
            f"error of their outputs {means[0]} on average, {means[1]} where they are rounded to nearest"
        )
    measured = report.get("cpu_sparse_measured")
    if measured:
        times = ", ".join(f"{kind} {time:.2f} ms" for kind, time in measured["milliseconds"].items())
        notes.append(
            f"--cpu-sparse auto took {measured['type']}: one row with {measured['threads']} threads takes {times}; "
            "int8 is never taken: it changes answers"
        )
    return notes


def _type(graph: Mapping[str, Any]) -> str:
    kind, packed, dense = graph["cpu_sparse"], graph["packed"], graph["dense"]
    counts = [f"{packed} layers 2:4 {kind}"] * bool(packed) + [f"{dense} weights dense {kind}"] * bool(dense)
    return ", ".join([graph["precision"], *counts])
