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
    weights, entries = Weights(model), {}
    for layer, pattern in promised.items():
        weight = weights.of_layer(layer)
        if weight is None:
            raise CheckFailed(f"{path.name} has no weight of {layer}, whose sparsity {pattern} is promised")
        entries[layer] = {"initializer": weight.initializer, "pattern": str(pattern), "axis": weight.axis}
    properties = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, properties | {KEY: json.dumps(entries)})
    onnx.save(model, path)


def check_onnx(path: Path, target: SparsityPattern | None = None) -> list[LayerReport]:
    """Compare the weights of an ONNX file with what its metadata promises, or all of them with `target`.

    With `target`, every weight of a MatMul, Gemm or Conv is checked, whatever wrote the file; a layer has its module's
    name if torch wrote one, otherwise its weight's.

    Raises:
        InputError: the file cannot be read, or it has no metadata and no target is given.
    """
    model = read(path)
    weights = Weights(model)
    found = _promised(path, model, weights) if target is None else _everything(weights, target)
    return [_report(path, weights, layer, weight, pattern) for layer, weight, pattern in found]


def read(path: Path) -> onnx.ModelProto:
    """Load an ONNX file with its external data.

    Raises:
        InputError: it is missing or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"no ONNX file at {path}")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's, onnx's and the system's errors share no other base
        raise InputError(f"{path} cannot be read as ONNX: {' '.join(str(error).split())[:200]}") from None
    if not model.graph.node:
        raise InputError(f"{path} cannot be read as ONNX: it has no graph")
    return model


def _promised(path: Path, model: onnx.ModelProto, weights: Weights) -> Iterator[tuple[str, Weight, SparsityPattern]]:
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), None)
    if text is None:
        raise InputError(f"{path} does not state its sparsity: give the pattern to check with --target, such as 2:4")
    for layer, entry in _entries(path, text).items():
        if entry["initializer"] not in weights.initializers:
            raise InputError(f"{path} has no weight {entry['initializer']}, which its metadata gives for {layer}")
        weight = Weight(entry["initializer"], int(entry["axis"]))
        yield layer, weight, SparsityPattern.parse(entry["pattern"])


def _entries(path: Path, text: str) -> dict[str, dict[str, Any]]:
    try:
        entries: dict[str, dict[str, Any]] = parse_json(text)
        if all({"initializer", "axis", "pattern"} <= entry.keys() for entry in entries.values()):
            return entries
    except (ValueError, AttributeError):
        pass
    raise InputError(f"{path} has unreadable sparsity metadata: export the model again")


def _everything(weights: Weights, target: SparsityPattern) -> Iterator[tuple[str, Weight, SparsityPattern]]:
    seen = set()
    for node, weight in weights:
        if weight.initializer not in seen:
            seen.add(weight.initializer)
            modules = scopes(node)[:-1]  # the last one is the operation's own name
            yield (modules[-1] if modules else weight.initializer), weight, target


def _report(path: Path, weights: Weights, layer: str, weight: Weight, pattern: SparsityPattern) -> LayerReport:
    values = weights.array(weight.initializer)
    zero = values == (0 if weight.zero_point is None else _zero_points(weights, weight, values.ndim))
    return examine(layer, path.stem, pattern, _rows(zero, weight.axis))


def _rows(zero: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Move the reduction axis last and flatten the others: (O, I)."""
    return np.moveaxis(zero, axis, -1).reshape(-1, zero.shape[axis])


def _zero_points(weights: Weights, weight: Weight, dimensions: int) -> NDArray[np.generic]:
    """Shape the zero points to compare them with the weight: one for all, or one per channel."""
    points = weights.array(weight.zero_point or "")
    shape = [1] * dimensions
    shape[weight.channel_axis] = points.size
    return points.reshape(()) if points.size == 1 else points.reshape(shape)
