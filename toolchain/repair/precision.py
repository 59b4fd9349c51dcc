"""The type of the products in training, and the scale that keeps float16's gradients from vanishing."""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from vlmc.toolchain.families.base import linears
from vlmc.toolchain.settings import Precision

TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
START, GROWTH = 2.0**16, 2000  # float16's first scale, and the good steps after which it doubles


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which products take this type."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, TYPES[precision])


def narrow(model: nn.Module, stored: Mapping[str, torch.dtype | None], precision: Precision) -> nn.Module:
    """Keep frozen weights in the type of the products where they are stored in it: no bit is lost, half the memory is.

    `stored` are the types of the model's parameters on disk. Where they are of several types, the Linear layers stored in
    that of the products are narrowed alone: autocast brings their inputs to it, and other modules take what they are given.
    """
    if precision == "fp32":
        return model
    if set(stored.values()) == {TYPES[precision]}:
        return model.to(TYPES[precision])
    uses = Counter(id(one) for _, one in model.named_parameters(remove_duplicate=False))
    for name, linear in linears(model):
        if stored.get(f"{name}.weight") == TYPES[precision] and uses[id(linear.weight)] == 1:
            linear.weight.data = linear.weight.data.to(TYPES[precision])
    return model


class LossScale:
    """What the loss is multiplied by before the backward pass: 1, but for float16.

    There it is halved by every gradient that is not finite, and doubled after 2000 steps without one (arXiv 1710.03740).
    """

    def __init__(self, precision: Precision) -> None:
        self.fixed = precision != "fp16"
        self.value, self.good = 1.0 if self.fixed else START, 0

    def update(self, finite: bool) -> None:
        """Take note of a step's gradient."""
        if self.fixed:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.good == GROWTH:
            self.value, self.good = self.value * 2, 0
