"""From a torch module to an ONNX file, by `torch.onnx.export(dynamo=True)`."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlmc.exporters.base import Precision
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx.filling import fill, fold
from vlmc.exporters.onnx.fusing import SINCE, fuse
from vlmc.exporters.onnx.naming import name_initializers
from vlmc.exporters.onnx.weights import SCOPES
from vlmc.exporters.skeleton import skeleton

BF16_SINCE = 22
"""The version of ONNX's operators from which on convolutions have bf16."""
EXTERNAL_ABOVE = 1_500_000_000
"""Bytes above which the weights go into a file of their own: protobuf ends at 2 GiB."""


def trace(spec: GraphSpec, path: Path, precision: Precision) -> None:
    """Trace the module on its example inputs and write the graph; weights of large ones go to `<path>.data`."""
    bones = skeleton(spec, precision)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            bones.module,
            tuple(bones.inputs),
            dynamo=True,
            opset_version=opset_of(spec, precision),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_shapes=_dynamic_shapes(spec),
            optimize=False,
            verbose=False,
        )
        assert program is not None
        fill(program.model, spec)
        fold(program.model)
        if spec.opset >= SINCE:
            program.model = fuse(program.model)
        _forget_origin(program)
        name_initializers(program.model.graph)
        program.save(path, external_data=spec.streamed or _bytes(bones.module) > EXTERNAL_ABOVE)


def opset_of(spec: GraphSpec, precision: Precision) -> int:
    """Return the version of ONNX's operators that a graph is written in."""
    return max(spec.opset, BF16_SINCE) if precision == "bf16" else spec.opset


def _dynamic_shapes(spec: GraphSpec) -> tuple[Any, ...]:
    """Name the dynamic dimensions in the form of forward's arguments, where `*rest` is a tuple of its own."""
    flat = [{axis: named.name for axis, named in spec.axes.get(name, {}).items()} for name in spec.inputs]
    kinds = [parameter.kind for parameter in signature(spec.module.forward).parameters.values()]
    if Parameter.VAR_POSITIONAL not in kinds:
        return tuple(flat)
    plain = kinds.index(Parameter.VAR_POSITIONAL)
    return (*flat[:plain], tuple(flat[plain:]))


def _forget_origin(program: torch.onnx.ONNXProgram) -> None:
    """Drop the stack traces that torch writes into every node: they triple small files and contain local paths."""
    for node in program.model.graph.all_nodes():
        for key in [key for key in node.metadata_props if key != SCOPES]:
            del node.metadata_props[key]


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporter on a missing torchvision, its own deprecations and shared axis names."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
