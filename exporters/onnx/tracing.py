"""From a torch module to an ONNX file, by `torch.onnx.export(dynamo=True)`."""

import copy
import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlmc.exporters.base import Precision
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx.fusing import SINCE, fuse
from vlmc.exporters.onnx.naming import name_initializers
from vlmc.exporters.onnx.weights import SCOPES

TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
EXTERNAL_ABOVE = 1_500_000_000
"""Bytes above which the weights go into a file of their own: protobuf ends at 2 GiB."""


def trace(spec: GraphSpec, path: Path, precision: Precision) -> None:
    """Trace the module on its example inputs and write the graph; weights of large ones go to `<path>.data`."""
    module = cast_module(spec.module, precision, spec.keep_fp32)
    inputs = tuple(cast_tensor(tensor, precision) for tensor in spec.inputs.values())
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=spec.opset,
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_shapes=_dynamic_shapes(spec),
            verbose=False,
        )
        assert program is not None
        if spec.opset >= SINCE:
            program.model = fuse(program.model)
        _forget_origin(program)
        name_initializers(program.model.graph)
        program.save(path, external_data=_bytes(module) > EXTERNAL_ABOVE)


def cast_module(module: nn.Module, precision: Precision, keep_fp32: Collection[str] = ()) -> nn.Module:
    """Return the module itself in fp32, or a copy in another type, the same as loading it in that type.

    Buffers that are computed, not stored, keep their type: rotary frequencies would be lost in fp16. So do the layers
    `keep_fp32`, in fp16.
    """
    if precision == "fp32":
        return module
    kept = keep_fp32 if precision == "fp16" else ()
    copies: dict[int, Any] = {}  # the weights are never there twice in float32
    for name, tensor in module.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and name.rpartition(".")[0] not in kept:
            cast = tensor.detach().to(TYPES[precision])
            copies[id(tensor)] = nn.Parameter(cast, requires_grad=False) if isinstance(tensor, nn.Parameter) else cast
    return copy.deepcopy(module, copies)


def cast_tensor(tensor: Tensor, precision: Precision) -> Tensor:
    """Return a floating-point tensor in the precision's type, any other unchanged."""
    return tensor.to(TYPES[precision]) if tensor.is_floating_point() else tensor


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
