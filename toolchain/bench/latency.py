"""What merging leaves of an adapter's latency: measured, and by the graphs, whose operators are the dense twin's."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DENSE, UNMERGED, MERGED = "dense", "sparse, LoRA apart", "sparse, merged"
AS_QUICK = 0.02
"""How much slower than the dense twin the merged model may be."""
Operator = tuple[str, str, tuple[tuple[int, tuple[int, ...]], ...]]
"""Its domain, its name, and the type and size of each stored input."""


def no_lora_latency(rows: Mapping[str, Any], *, same: bool | None) -> dict[str, Any]:
    """Say whether the merged model is as quick as its dense twin, and the one with its adapter apart slower than it.

    `same`: whether the graphs have the same operators; None: there are no graphs.
    """
    merged, unmerged = (rows[name]["of_dense"]["end to end"] for name in (MERGED, UNMERGED))
    holds = merged["median"] >= 1 - AS_QUICK and unmerged["median"] < merged["median"]
    return {
        "merged_of_dense": merged["median"],
        "spread": merged["spread"],
        "unmerged_of_dense": unmerged["median"],
        "holds": holds,
        "same_operators": same,
    }


def said(latency: Mapping[str, Any]) -> str:
    """Return it in a sentence."""
    graphs = {
        None: "",
        True: "; the merged graphs are the dense twin's, operator for operator",
        False: "; the merged graphs have other operators than the dense twin's",
    }[latency["same_operators"]]
    return (
        f"no LoRA latency: merged {latency['merged_of_dense']:.2f} of the dense twin's speed (spread over the rounds "
        f"{latency['spread']:.2f}), adapter apart {latency['unmerged_of_dense']:.2f}: "
        f"{'holds' if latency['holds'] else 'does not hold in this run'}{graphs}"
    )


def have_same_operators(one: Path, other: Path) -> bool:
    """Say whether two folders have graphs of the same names, with the same operators, whatever the weights' values."""
    names = sorted(path.name for path in one.glob("*.onnx"))
    same = names == sorted(path.name for path in other.glob("*.onnx"))
    return same and all(_operators(one / name) == _operators(other / name) for name in names)


def _operators(path: Path) -> Counter[Operator]:
    """Count the operators of a graph; its weights are not read."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    return Counter(
        (node.domain, node.op_type, tuple(stored[name] for name in node.input if name in stored)) for node in graph.node
    )
