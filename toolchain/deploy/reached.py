"""Which of a model's layers a graph really runs, found in the autograd graph."""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from vlmc.exporters.graphs import GraphSpec


def reached(spec: GraphSpec, model: nn.Module, layers: Iterable[str]) -> dict[str, str]:
    """Map Linear layers' names inside the graph's module to their names in the model, out of `layers`.

    A layer whose weight no output depends on is left out: LLaVA takes its features before the tower's last block.
    """
    names = {id(model.get_submodule(name)): name for name in layers}
    inside = {name: module for name, module in spec.module.named_modules() if id(module) in names}
    weights = {name: cast(nn.Parameter, module.weight) for name, module in inside.items()}
    used = _used(spec, weights.values())
    return {name: names[id(module)] for name, module in inside.items() if id(weights[name]) in used}


def _used(spec: GraphSpec, weights: Iterable[nn.Parameter]) -> set[int]:
    """Return the ids of the weights that the outputs for the example depend on."""
    asked = {weight: weight.requires_grad for weight in weights}
    for weight in asked:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            output = spec.module(*spec.inputs.values())
    finally:
        for weight, before in asked.items():
            weight.requires_grad_(before)
    outputs = output if isinstance(output, tuple) else (output,)
    waiting: list[Any] = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    seen, used = set(waiting), set()
    while waiting:
        node = waiting.pop()
        if node.name() == "torch::autograd::AccumulateGrad":
            used.add(id(node.variable))
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        waiting += following
    return used
