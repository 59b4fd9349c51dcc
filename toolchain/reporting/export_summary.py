"""What an artifact's exports amount to: graphs, parity, sparsity, bytes, engines, what is proven and what is not."""

from collections.abc import Mapping
from typing import Any

from vlmc.exporters import BACKENDS
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.json_text import read_json
from vlmc.runtime.sparsity import SparsityPattern

ITEM = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes of a weight."""


def summarise(artifact: Artifact) -> dict[str, Any]:
    """Return the summary of every backend's report in the artifact, as JSON values.

    A backend whose report does not describe its graphs as `exporters.onnx` and `exporters.tensorrt` do is left out.
    """
    manifest = artifact.manifest
    reports = {
        name: read_json(artifact.root / name / backend.report)
        for name, backend in BACKENDS.items()
        if f"{name}/{backend.report}" in manifest.files
    }
    said = {name: _backend(report) for name, report in reports.items() if _describes_graphs(report)}
    about = {"model": manifest.origin.model, "family": manifest.family, "state": manifest.state, "digest": artifact.digest}
    return about | {"promised": len(manifest.layers), "backends": said}


def _describes_graphs(report: Mapping[str, Any]) -> bool:
    return "precision" in report and all(isinstance(graph, dict) and "layers" in graph for graph in report["graphs"])


def _backend(report: Mapping[str, Any]) -> dict[str, Any]:
    graphs = [_graph(graph) for graph in report["graphs"]]
    twins = {name: {"graphs": [_graph(one) for one in twin["graphs"]]} for name, twin in report.get("twins", {}).items()}
    engines = [
        {key: engine[key] for key in ("graph", "gpu", "file", "bytes", "note")}
        | {"eligible": len(engine["eligible"]), "chosen": _chosen(engine)}
        for engine in report.get("engines", [])
    ]
    proven, unproven = _proofs(report)
    found = {"precision": report["precision"], "graphs": graphs, "twins": twins, "engines": engines}
    return found | {"versions": report.get("versions", {}), "proven": proven, "not_proven": unproven}


def _graph(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Return a graph with the bytes of its promised weights: dense, as they are in the file, and packed."""
    item, stored = ITEM[graph["precision"]], graph.get("stored")
    dense = sum(item * layer["rows"] * layer["columns"] for layer in graph["layers"])
    here = dense if not stored else dense - stored["dense_bytes"] + stored["packed_bytes"]
    if graph["cpu_sparse"]:
        here = dense - sum(item * one["rows"] * one["columns"] for one in _two_four(graph)) + graph["packed_bytes"]
    packed = sum(_packed(layer, item) for layer in graph["layers"])
    weights = {"dense": dense, "in_file": here, "packed": packed}
    kept = {key: graph[key] for key in ("graph", "precision", "cpu_sparse", "bytes", "max_error", "tolerance", "cases")}
    layers = [{key: one[key] for key in ("layer", "pattern", "rows", "columns", "sparsity")} for one in graph["layers"]]
    return kept | {"weights": weights, "layers": layers}


def _two_four(graph: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [layer for layer in graph["layers"] if layer["pattern"] == "2:4"]


def _packed(layer: Mapping[str, Any], item: int) -> int:
    """Return the bytes that --packed gives a layer: kept values and a nibble for each group of four."""
    groups = layer["columns"] // 4
    if layer["pattern"] != str(SparsityPattern.parse("2:4")):
        return int(item * layer["rows"] * layer["columns"])
    return int(layer["rows"] * (2 * item * groups + -(-groups // 2)))


def _chosen(engine: Mapping[str, Any]) -> int | None:
    known = [layer["chosen"] for layer in engine.get("layers", [])]  # older reports have none
    return None if not known or None in known else sum(known)


def _proofs(report: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what was checked on the files themselves, and what nobody checked."""
    graphs, agreement = report["graphs"], report.get("agreement")
    layers = sum(len(graph["layers"]) for graph in graphs)
    proven = [f"{layers} weights hold their promised pattern, read from the graphs' files", "every graph is valid ONNX"]
    unproven = []
    compared = [graph for graph in graphs if graph["max_error"] is not None]
    if compared:
        worst = max(graph["max_error"] for graph in compared)
        proven.append(f"{len(compared)} graphs compute what torch does, within {worst:.1e} of their outputs' largest value")
    rounding = max((graph.get("rounding_error") or 0.0 for graph in graphs), default=0.0)  # older reports have none
    if rounding:
        share = f"{rounding:.1e} of their largest value"
        unproven.append(f"what rounding does to answers: it changes torch's outputs by up to {share}")
    if len(compared) < len(graphs):
        unproven.append(f"the outputs of {len(graphs) - len(compared)} graphs: nothing here runs their type")
    if agreement:
        equal = f"{agreement['questions']} answers, {agreement['tokens']} tokens, are transformers' greedy ones"
        equal += " with the graphs' rounded weights" if rounding else ""
        ties = agreement["answers_that_differ_at_a_tie"]
        proven.append(equal + (f", {ties} of them from a tie of two logits on not" if ties else ""))
    else:
        unproven.append("answers: these graphs were not asked")
    if missing := report.get("layers_in_no_graph"):
        unproven.append(f"{len(missing)} pruned layers are in no graph, because no output needs them")
    for note in dict.fromkeys(one["note"] for one in report.get("engines", []) if one["note"]):
        unproven.append(f"sparse kernels: {note}")
    if report.get("engines"):
        unproven.append("what the engines answer, and how fast: vlmc does not run them")
    return proven, [*unproven, "speed: an export measures none; vlmc bench does"]
