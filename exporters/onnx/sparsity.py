"""The sparsity of an ONNX file: written into its metadata at export, and checked on its own weights.

The metadata entry `vlmc.sparsity` is JSON: layer -> {initializer, pattern, axis}, where `axis` is the axis of the
initializer that the product sums over: groups of M run along it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from vlmc.exporters.onnx.guessing import guess
from vlmc.exporters.onnx.weights import Weight, Weights, scopes
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.json_text import parse_json
from vlmc.runtime.reports import LayerReport, examine
from vlmc.runtime.sparsity import SparsityPattern

KEY = "vlmc.sparsity"


def label(path: Path, promised: Mapping[str, SparsityPattern]) -> None:
    """Write the place of each promised layer's weight into the file's metadata.

    Raises:
        CheckFailed: a promised layer is not in the graph.
    """
    model = onnx.load(path, load_external_data=False)
    weights, entries = Weights(model, path.parent), {}
    for layer, pattern in promised.items():
        weight = weights.of_layer(layer)
        if weight is None:
            raise CheckFailed(f"{path.name} has no weight of {layer}, whose sparsity {pattern} is promised")
        entries[layer] = {"initializer": weight.initializer, "pattern": str(pattern), "axis": weight.axis}
    properties = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, properties | {KEY: json.dumps(entries)})
    onnx.save(model, path)


def relabel(path: Path) -> None:
    """Write the places again for the layers that the metadata promises: their weights are stored in another way now.

    Raises:
        InputError: the metadata cannot be read.
        CheckFailed: a promised layer is not in the graph any more.
    """
    model = onnx.load(path, load_external_data=False)
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), None)
    if text is not None:
        label(path, {layer: SparsityPattern.parse(entry["pattern"]) for layer, entry in _entries(path, text).items()})


def check_onnx(path: Path, target: SparsityPattern | None = None) -> list[LayerReport]:
    """Compare the weights of an ONNX file with what its metadata promises, or all of them with `target`.

    With `target`, every weight of a MatMul, Gemm or Conv is checked, whatever wrote the file; a layer has its module's
    name if torch wrote one, otherwise its weight's. Without `target` and metadata, each weight's pattern is guessed.

    Raises:
        InputError: the file cannot be read, it has no weights, or all that it has are dense and no target is given.
    """
    model = read(path)
    weights = Weights(model, path.parent)
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), None)
    if target is None and text is not None:
        promised = _promised(path, text, weights)
        return [examine(layer, path.stem, pattern, _zeros(weights, weight)) for layer, weight, pattern in promised]
    every = list(_everything(weights))
    if not every:
        raise InputError(f"{path} has no weights: nothing in it multiplies with a stored tensor")
    if target is None:
        return guess(path, [(layer, _zeros(weights, weight)) for layer, weight in every])
    return _compared(path, weights, target)


def compare_weights(path: Path, target: SparsityPattern) -> list[LayerReport]:
    """Compare every weight of a MatMul, Gemm or Conv with `target`; none where a graph has none, such as that of a table.

    Raises:
        InputError: the file cannot be read.
    """
    return _compared(path, Weights(read(path), path.parent), target)


def _compared(path: Path, weights: Weights, target: SparsityPattern) -> list[LayerReport]:
    return [examine(layer, path.stem, target, _zeros(weights, weight)) for layer, weight in _everything(weights)]


def read(path: Path) -> onnx.ModelProto:
    """Load an ONNX file, without the weights that lie in files of their own.

    Raises:
        InputError: it is missing or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"no ONNX file at {path}")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's, onnx's and the system's errors share no other base
        raise InputError(f"{path} cannot be read as ONNX: {' '.join(str(error).split())[:200]}") from None
    if not model.graph.node:
        raise InputError(f"{path} cannot be read as ONNX: it has no graph")
    return model


def _promised(path: Path, text: str, weights: Weights) -> Iterator[tuple[str, Weight, SparsityPattern]]:
    for layer, entry in _entries(path, text).items():
        if entry["initializer"] not in weights.initializers:
            raise InputError(f"{path} has no weight {entry['initializer']}, which its metadata gives for {layer}")
        used = {weight.axis: weight for _, weight in weights if weight.initializer == entry["initializer"]}
        if entry["axis"] not in used:
            axes = " or ".join(str(axis) for axis in used) or "none"
            raise InputError(
                f"{path}: the weight of {layer} is summed over axis {axes}, not {entry['axis']} as its metadata says"
            )
        yield layer, used[entry["axis"]], SparsityPattern.parse(entry["pattern"])


def _entries(path: Path, text: str) -> dict[str, dict[str, Any]]:
    try:
        entries: dict[str, dict[str, Any]] = parse_json(text)
        if all({"initializer", "axis", "pattern"} <= entry.keys() for entry in entries.values()):
            return entries
    except (ValueError, AttributeError):
        pass
    raise InputError(f"{path} has unreadable sparsity metadata: export the model again")


def _everything(weights: Weights) -> Iterator[tuple[str, Weight]]:
    """Yield each weight once for each axis that a product sums over: two nodes may share one, and turn it."""
    seen = set()
    for node, weight in weights:
        if (weight.initializer, weight.axis) not in seen:
            seen.add((weight.initializer, weight.axis))
            yield layer_of(node, weight), weight


def layer_of(node: onnx.NodeProto, weight: Weight) -> str:
    """Return what the weight of a node is called: its module's name if torch wrote one, else the weight's own."""
    modules = scopes(node)[:-1]  # the last one is the operation's own name
    return modules[-1] if modules and modules[-1] else weight.initializer


def _zeros(weights: Weights, weight: Weight) -> NDArray[np.bool_]:
    """Return where a weight is zero, (O, I)."""
    values = weights.array(weight.initializer)
    zero = values == (0 if weight.zero_point is None else _zero_points(weights, weight, values.ndim))
    return _rows(zero, weight.axis)


def _rows(zero: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Move the reduction axis last and flatten the others: (O, I)."""
    return np.moveaxis(zero, axis, -1).reshape(-1, zero.shape[axis])


def _zero_points(weights: Weights, weight: Weight, dimensions: int) -> NDArray[np.generic]:
    """Shape the zero points to compare them with the weight: one for all, or one per channel."""
    points = weights.array(weight.zero_point or "")
    shape = [1] * dimensions
    shape[weight.channel_axis] = points.size
    return points.reshape(()) if points.size == 1 else points.reshape(shape)
