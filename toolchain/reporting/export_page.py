"""The export's summary as one HTML page: no script, no other file, nothing from the network."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from vlmc.toolchain.reporting.page_parts import bars, bullets, document, heading, table
from vlmc.toolchain.reporting.tables import megabytes, percent

NONE = 0.01
"""A layer with a smaller share of zeros stands out."""


def page(found: Mapping[str, Any]) -> str:
    """Return the whole page for what `summarise` found."""
    about = (
        f"<p>{escape(found['family'])}, {escape(found['state'])}, {found['promised']} pruned layers; "
        f"artifact <span class='digest'>{escape(found['digest'][:16])}</span></p>"
    )
    return document(f"Export of {found['model']}", [about, *(backend(*one) for one in found["backends"].items())])


def backend(name: str, found: Mapping[str, Any]) -> str:
    """Return the part of a page about one backend."""
    graphs, engines = found["graphs"], found["engines"]
    parts = [heading(f"{name}, {found['precision']}"), bullets("Proven", found["proven"])]
    parts += [bullets("Not proven", found["not_proven"]), heading("Graphs", 3), _graphs(graphs)]
    for twin, inside in found["twins"].items():
        parts += [heading(twin, 3), _graphs(inside["graphs"])]
    parts += [heading("Bytes of the pruned weights", 3), _bytes(graphs), heading("Zeros in each pruned layer", 3)]
    parts += [_picture(graph) for graph in graphs if graph["layers"]]
    if engines:
        rows = [
            (
                one["file"],
                one["gpu"],
                megabytes(one["bytes"]),
                one["eligible"],
                "not known" if one["chosen"] is None else one["chosen"],
            )
            for one in engines
        ]
        parts += [heading("Engines", 3), table(("engine", "gpu", "size", "eligible layers", "run sparse"), rows)]
    return "\n".join(parts)


def _graphs(graphs: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (one["graph"], _type(one), megabytes(one["bytes"]), _error(one), one["cases"], len(one["layers"])) for one in graphs
    ]
    return table(("graph", "type", "size", "error against torch", "inputs compared", "pruned layers"), rows)


def _bytes(graphs: Iterable[Mapping[str, Any]]) -> str:
    """Return the weights' bytes in the dense layout, which zeros do not change, in the file, and packed."""
    rows = []
    for one in (graph for graph in graphs if graph["layers"]):
        dense, here, packed = (one["weights"][key] for key in ("dense", "in_file", "packed"))
        rows.append((one["graph"], megabytes(dense), megabytes(here), megabytes(packed), f"{packed / dense:.4f}"))
    return table(("graph", "dense, or with zeros", "as in this file", "with --packed", "packed of dense"), rows)


def _picture(graph: Mapping[str, Any]) -> str:
    """Draw a bar for each layer, as high as its share of zeros."""
    layers = graph["layers"]
    shares = [one["sparsity"] for one in layers]
    told = [
        f"{one['layer']}: {percent(one['sparsity'])} zeros, {one['pattern']}, {one['columns']} to {one['rows']}"
        for one in layers
    ]
    label = f"{graph['graph']}: {len(layers)} layers, {100 * min(shares):.1f} to {percent(max(shares))} zeros"
    return bars(label, shares, told, low=NONE)


def _type(graph: Mapping[str, Any]) -> str:
    return f"{graph['precision']}, 2:4 in {graph['cpu_sparse']}" if graph["cpu_sparse"] else str(graph["precision"])


def _error(graph: Mapping[str, Any]) -> str:
    error = graph["max_error"]
    return "not compared" if error is None else f"{error:.1e} of {graph['tolerance']:.0e}"
