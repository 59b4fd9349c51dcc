"""What TensorRT's engine inspector says of an engine's layers: the tactic of each, and the ONNX nodes that it runs.

A detailed build's JSON has `Layers`, each with `Name`, `TacticName` or `TacticValue`, and often `Metadata`; names and
metadata are those of the log. A build that is not detailed has names alone.
"""

import json
from typing import Any

from vlmc.exporters.tensorrt.binding import Binding
from vlmc.exporters.tensorrt.layers import EngineLayers, nodes_in


def inspect(binding: Binding, engine: bytes, logger: Any) -> EngineLayers:
    """Return the layers of an engine; none where only the target GPU could open it, or nothing can be read."""
    if binding.ahead_of_time:
        return EngineLayers({}, {})
    opened = binding.trt.Runtime(logger).deserialize_cuda_engine(engine)
    if opened is None:
        return EngineLayers({}, {})
    told = opened.create_engine_inspector().get_engine_information(binding.trt.LayerInformationFormat.JSON)
    return read_inspector(told)


def read_inspector(told: str) -> EngineLayers:
    """Read the inspector's JSON; a form that is not known has no layers."""
    try:
        layers = json.loads(told, strict=False)["Layers"]  # `Metadata` has separators that JSON wants escaped
    except (ValueError, KeyError, TypeError, RecursionError):
        layers = []
    tactics, nodes = dict[str, str](), dict[str, tuple[str, ...]]()
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and isinstance(layer.get("Name"), str):
            inside = nodes_in(layer["Name"], str(layer.get("Metadata", "")))
            nodes[layer["Name"]] = inside
            if tactic := layer.get("TacticName") or layer.get("TacticValue"):
                tactics |= dict.fromkeys(inside, str(tactic))
    return EngineLayers(tactics, nodes)
