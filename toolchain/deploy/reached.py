"""Which of a model's layers a graph really runs, found in the autograd graph."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.skeleton import Skeleton, skeleton


def reached(spec: GraphSpec, model: nn.Module, layers: Iterable[str]) -> dict[str, str]:
    """Map Linear layers' names inside the graph's module to their names in the model, out of `layers`.

    A layer whose weight no output depends on is left out: LLaVA takes its features before the tower's last block.
    """
    names = {id(model.get_submodule(name)): name for name in layers}
    inside = {name: names[id(module)] for name, module in spec.module.named_modules() if id(module) in names}
    bones = skeleton(spec, "fp32")
    weights = {name: bones.module.get_parameter(f"{name}.weight") for name in inside}
    used = _used(bones, weights.values())
    return {name: known for name, known in inside.items() if id(weights[name]) in used}


def _used(bones: Skeleton, weights: Iterable[nn.Parameter]) -> set[int]:
    """Return the ids of the weights that the outputs for the example depend on."""
    for weight in weights:
        weight.requires_grad_(True)
    with torch.enable_grad():
        output = bones.module(*bones.inputs)
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
