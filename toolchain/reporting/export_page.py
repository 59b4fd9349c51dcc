"""The export's summary as one HTML page: no script, no other file, nothing from the network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

PER_ROW, WIDTH, HEIGHT = 100, 9, 46
"""Layers beside each other in the picture, and the size of each in pixels."""
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #2a78d6; --low: #c0392b }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .6rem 0 1.2rem } td, th { padding: .25rem .8rem; border-bottom: 1px solid
var(--line); text-align: right; font-variant-numeric: tabular-nums } td:first-child, th:first-child { text-align: left;
overflow-wrap: anywhere }
.wide { overflow-x: auto } svg { max-width: 100% } rect.low { fill: var(--low) } rect { fill: var(--bar) }
code, .digest { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere }
""".strip()


def page(found: Mapping[str, Any]) -> str:
    """Return the whole page for what `summarise` found."""
    title = f"Export of {found['model']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(found['family'])}, {escape(found['state'])}, {found['promised']} pruned layers; "
        f"artifact <span class='digest'>{escape(found['digest'][:16])}</span></p>",
        *(_backend(name, backend) for name, backend in found["backends"].items()),
    ]
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{escape(title)}</title>"
    body = "\n".join(parts)
    return f"<!doctype html>\n<html lang='en'><head>{head}<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"


def _backend(name: str, found: Mapping[str, Any]) -> str:
    graphs, engines = found["graphs"], found["engines"]
    parts = [f"<h2>{escape(name)}, {escape(found['precision'])}</h2>", _list("Proven", found["proven"])]
    parts += [_list("Not proven", found["not_proven"]), "<h3>Graphs</h3>", _graphs(graphs)]
    for twin, inside in found["twins"].items():
        parts += [f"<h3>{escape(twin)}</h3>", _graphs(inside["graphs"])]
    parts += ["<h3>Bytes of the pruned weights</h3>", _bytes(graphs), "<h3>Zeros in each pruned layer</h3>"]
    parts += [_picture(graph) for graph in graphs if graph["layers"]]
    if engines:
        rows = [
            (
                one["file"],
                one["gpu"],
                _mb(one["bytes"]),
                one["eligible"],
                "not known" if one["chosen"] is None else one["chosen"],
            )
            for one in engines
        ]
        parts += ["<h3>Engines</h3>", _table(("engine", "gpu", "size", "eligible layers", "run sparse"), rows)]
    return "\n".join(parts)


def _graphs(graphs: Iterable[Mapping[str, Any]]) -> str:
    rows = [(one["graph"], _type(one), _mb(one["bytes"]), _error(one), one["cases"], len(one["layers"])) for one in graphs]
    return _table(("graph", "type", "size", "error against torch", "inputs compared", "pruned layers"), rows)


def _bytes(graphs: Iterable[Mapping[str, Any]]) -> str:
    """Return the weights' bytes in the dense layout, which zeros do not change, in the file, and packed."""
    rows = []
    for one in (graph for graph in graphs if graph["layers"]):
        dense, here, packed = (one["weights"][key] for key in ("dense", "in_file", "packed"))
        rows.append((one["graph"], _mb(dense), _mb(here), _mb(packed), f"{packed / dense:.4f}"))
    return _table(("graph", "dense, or with zeros", "as in this file", "with --packed", "packed of dense"), rows)


def _picture(graph: Mapping[str, Any]) -> str:
    """Draw a bar for each layer, as high as its share of zeros; the pointer over one shows which it is."""
    layers = graph["layers"]
    lines = -(-len(layers) // PER_ROW)
    size = (WIDTH * min(len(layers), PER_ROW), (HEIGHT + 8) * lines)
    bars = []
    for number, one in enumerate(layers):
        x, y = WIDTH * (number % PER_ROW), (HEIGHT + 8) * (number // PER_ROW)
        high = HEIGHT * one["sparsity"]
        told = f"{one['layer']}: {100 * one['sparsity']:.1f} % zeros, {one['pattern']}, {one['columns']} to {one['rows']}"
        low = " class='low'" if one["sparsity"] < 0.01 else ""
        place = f"x='{x}' y='{y + HEIGHT - high:.1f}' width='{WIDTH - 2}' height='{high:.1f}'"
        bars.append(f"<rect{low} {place}><title>{escape(told)}</title></rect>")
    shares = [one["sparsity"] for one in layers]
    label = f"{graph['graph']}: {len(layers)} layers, {100 * min(shares):.1f} to {100 * max(shares):.1f} % zeros"
    drawn = f"<svg role='img' width='{size[0]}' height='{size[1]}' viewBox='0 0 {size[0]} {size[1]}'>{''.join(bars)}</svg>"
    return f"<p>{escape(label)}</p>\n{drawn}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class='wide'><table><tr>{head}</tr>\n{body}</table></div>"


def _list(title: str, lines: Iterable[str]) -> str:
    return f"<h3>{title}</h3>\n<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _type(graph: Mapping[str, Any]) -> str:
    return f"{graph['precision']}, 2:4 in {graph['cpu_sparse']}" if graph["cpu_sparse"] else str(graph["precision"])


def _error(graph: Mapping[str, Any]) -> str:
    error = graph["max_error"]
    return "not compared" if error is None else f"{error:.1e} of {graph['tolerance']:.0e}"


def _mb(count: int) -> str:
    return f"{count / 1e6:.2f} MB"
