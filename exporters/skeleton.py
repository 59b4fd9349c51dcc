"""A module without the values of its weights, in the type of a graph: what tracing needs, and it takes no memory."""

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vlmc.exporters.base import Precision
from vlmc.exporters.graphs import GraphSpec

TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Skeleton:
    """A copy of a graph's module, and its example inputs. All are fake tensors: they have shapes and types only."""

    module: nn.Module
    inputs: Sequence[Tensor]


def skeleton(spec: GraphSpec, precision: Precision) -> Skeleton:
    """Return the module of a graph without its weights, as it is once it was loaded in a type."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    module = _copy(spec.module, precision, spec.keep_fp32, mode)
    return Skeleton(module, [mode.from_tensor(cast_tensor(tensor, precision)) for tensor in spec.inputs.values()])


def cast_tensor(tensor: Tensor, precision: Precision) -> Tensor:
    """Return a floating-point tensor in the precision's type, any other unchanged."""
    return tensor.to(TYPES[precision]) if tensor.is_floating_point() else tensor


def _copy(module: nn.Module, precision: Precision, keep_fp32: Collection[str], mode: FakeTensorMode) -> nn.Module:
    """Copy a module, with parameters that are fake, and buffers as they are.

    Buffers that are computed, not stored, keep their type: rotary frequencies would be lost in fp16. So do the layers
    `keep_fp32`, in fp16.
    """
    kept = keep_fp32 if precision == "fp16" else ()
    copies: dict[int, Any] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        wide = not tensor.is_floating_point() or name.rpartition(".")[0] in kept
        dtype = tensor.dtype if wide else TYPES[precision]
        if isinstance(tensor, nn.Parameter):
            with mode:
                copies[id(tensor)] = nn.Parameter(torch.empty(tensor.shape, dtype=dtype), requires_grad=False)
        else:
            copies[id(tensor)] = tensor.detach().to(dtype)
    hooks = [hook for one in module.modules() if (hook := getattr(one, "_hf_hook", None)) is not None]
    copied = copy.deepcopy(module, copies | {id(hook): hook for hook in hooks})
    if hooks:
        from accelerate.hooks import remove_hook_from_submodules  # those read a streamed model's weights

        remove_hook_from_submodules(copied)
    return copied
