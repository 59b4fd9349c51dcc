"""The weights of an engine, one by one: may each run sparse, did TensorRT choose that, by which tactic, and why not.

TensorRT's log names its own layers. A layer's ONNX nodes are in its metadata, `[ONNX Layer: node]`, or in its name, joined
by ` + `. Two forms of the log's list of layers are read: `Layer(kind): name, Tactic: 0x1, ...` of 8.x, and `Name: name,
LayerType: kind, ..., TacticName: tactic, ..., Metadata: ...` of detailed builds since.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx.sparsity import layer_of
from vlmc.exporters.onnx.weights import Weights
from vlmc.exporters.tensorrt.log import SparsityLog
from vlmc.runtime.reports import LayerReport

LARGE, MULTIPLE, ROWS = 256, 16, 64
"""Rules of thumb: sparse tactics win above so many features; sizes must be such multiples; a product needs so many rows."""
UNKNOWN = "decided at run time on the target GPU"
SILENT = "the builder's log does not say which layers were chosen"
_OLD = re.compile(r"\bLayer\(\w+\): (?P<name>.+?), Tactic: (?P<tactic>\w+),")
_NEW = re.compile(r"^.*?\bName: (?P<name>.+?), LayerType: .*?\bTacticName: (?P<tactic>[^,]*),.*?\bMetadata: (?P<onnx>.*)$")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_SPARSE = re.compile(r"spars|spmma", re.IGNORECASE)


@dataclass(frozen=True)
class LayerChoice:
    """One weight of an engine: `inputs` and `outputs` are its features, `rows` those of its product at the profile's OPT.

    `eligible`: it is 2:4 in the graph, by vlmc's own check. `chosen`: TensorRT runs it sparse. None: nothing says so. `why`
    says why it is not sparse: what is known, or else the likeliest reason.
    """

    layer: str
    inputs: int
    outputs: int
    rows: int | None
    eligible: bool
    chosen: bool | None
    tactic: str | None
    why: str | None


@dataclass(frozen=True)
class EngineLayers:
    """TensorRT's layers as its log lists them: the tactic of each ONNX node, and the nodes of each layer."""

    tactics: Mapping[str, str]
    nodes: Mapping[str, tuple[str, ...]]

    def of(self, name: str) -> tuple[str, ...]:
        """Return the ONNX nodes of a layer, by TensorRT's name for it."""
        return self.nodes.get(name) or tuple(name.split(" + "))

    def __or__(self, other: "EngineLayers") -> "EngineLayers":
        """Return both; of a node that both know, `other` has the tactic."""
        return EngineLayers({**self.tactics, **other.tactics}, {**self.nodes, **other.nodes})


def nodes_in(layer: str, metadata: str | None) -> tuple[str, ...]:
    """Return the ONNX nodes of a layer from its metadata, or else from its name."""
    return tuple(_NODE.findall(metadata or "")) or tuple(layer.split(" + "))


def read_layers(lines: Iterable[str]) -> EngineLayers:
    """Read the layers that a builder's log lists; the last list counts."""
    tactics: dict[str, str] = {}
    nodes: dict[str, tuple[str, ...]] = {}
    for line in (one for message in lines for one in message.splitlines()):
        if found := _NEW.match(line) or _OLD.search(line):
            parts = found.groupdict()
            inside = nodes_in(parts["name"], parts.get("onnx"))
            nodes[parts["name"]] = inside
            tactics |= {node: parts["tactic"] for node in inside if parts["tactic"]}
    return EngineLayers(tactics, nodes)


def choices(
    spec: GraphSpec, path: Path, reports: Iterable[LayerReport], log: SparsityLog, engine: EngineLayers, *, known: bool
) -> list[LayerChoice]:
    """Return every weight of the graph at `path`; `known`: the build, and not the target GPU, chose the tactics."""
    model = onnx.load(path, load_external_data=False)
    products: dict[str, onnx.NodeProto] = {}
    for node, weight in Weights(model, path.parent):
        products.setdefault(layer_of(node, weight), node)
    shapes = _shapes(model, {axis.name: axis.optimum for axes in spec.axes.values() for axis in axes.values()})
    chosen = None if log.chosen is None else {node for name in log.chosen for node in engine.of(name)}
    eligible = None if log.eligible is None else {node for name in log.eligible for node in engine.of(name)}
    found = []
    for report in reports:
        node = products[report.layer]
        tactic = engine.tactics.get(node.name)
        rows = shapes.get(node.input[0])
        sparse = _is_chosen(node.name, tactic, chosen) if known else None
        listed = eligible is None or node.name in eligible
        why = None if sparse else _why(report, rows, sparse, listed=listed, known=known)
        size = (report.columns, report.rows, rows)
        found.append(LayerChoice(report.layer, *size, report.violation is None, sparse, tactic, why))
    return found


def _is_chosen(node: str, tactic: str | None, chosen: set[str] | None) -> bool | None:
    if tactic is not None and _SPARSE.search(tactic):
        return True
    return None if chosen is None else node in chosen


def _why(report: LayerReport, rows: int | None, chosen: bool | None, *, listed: bool, known: bool) -> str:
    """Return why a weight does not run sparse."""
    if report.violation is not None:
        return f"not 2:4: {report.violation}"
    if chosen is None:
        return SILENT if known else UNKNOWN
    if report.columns % MULTIPLE or report.rows % MULTIPLE:
        return f"odd size: not multiples of {MULTIPLE}"
    if min(report.columns, report.rows) < LARGE:
        return f"a dimension under {LARGE}"
    if rows is not None and rows < ROWS:
        return f"too few rows at OPT: {rows}"
    return "lost the timing" if listed else "TensorRT does not count it as eligible"


def _shapes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the rows, all dimensions but the last multiplied, of each value whose dimensions are known at OPT."""
    found = {}
    for value in (*model.graph.input, *model.graph.value_info):
        dims = [sizes.get(dim.dim_param, 0) or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if dims and all(dims[:-1]):
            rows = 1
            for dim in dims[:-1]:
                rows *= dim
            found[value.name] = rows
    return found
