"""The type of the products in training, and the scale that keeps float16's gradients from vanishing."""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from vlmc.toolchain.families.base import linears
from vlmc.toolchain.settings import Precision

TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which products take this type."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, TYPES[precision])


def narrow(model: nn.Module, stored: Mapping[str, torch.dtype | None], precision: Precision) -> nn.Module:
    """Keep frozen weights in the type of the products where they are stored in it: no bit is lost, half the memory is.

    `stored` are the types of the model's parameters on disk. Where they are of several types, the Linear layers stored in
    that of the products are narrowed alone: autocast brings their inputs to it, and other modules take what they are given.
    Buffers, such as the frequencies of rotary positions, are computed and not stored: they stay in float32.
    """
    kind = TYPES[precision]
    if precision == "fp32":
        return model
    if set(stored.values()) == {kind}:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(kind)
        return model
    uses = Counter(id(one) for _, one in model.named_parameters(remove_duplicate=False))
    for name, linear in linears(model):
        if stored.get(f"{name}.weight") == kind and uses[id(linear.weight)] == 1:
            linear.weight.data = linear.weight.data.to(kind)
    return model


def scaler(device: torch.device, precision: Precision) -> GradScaler:
    """Return what the loss is multiplied by before the backward pass: 1, but for float16 (arXiv 1710.03740).

    There it is halved by every gradient that is not finite, and doubled after 2000 steps without one.
    """
    return GradScaler(device.type, enabled=precision == "fp16")


def scaler_state(some: GradScaler) -> Tensor:
    """Return a scaler's scale, and the good steps since it last changed, as `restore_scaler` takes them."""
    state = some.state_dict()
    return torch.tensor([state.get("scale", 1.0), state.get("_growth_tracker", 0)], dtype=torch.float64)


def restore_scaler(some: GradScaler, state: Tensor) -> None:
    """Take up what `scaler_state` returned."""
    if some.is_enabled():
        some.load_state_dict(some.state_dict() | {"scale": float(state[0]), "_growth_tracker": int(state[1])})
