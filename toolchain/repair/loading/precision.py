"""The type of the matrix products in training, and the loss scale that keeps float16 gradients from vanishing."""

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
    """Return a context in which matrix products have this type."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, TYPES[precision])


def narrow(model: nn.Module, stored: Mapping[str, torch.dtype | None], precision: Precision) -> nn.Module:
    """Keep frozen weights in the type of the products where they are stored in it: half the memory, and no bit is lost.

    `stored` are the types of the model's parameters on disk. Where these differ, only Linear layers stored in the type of
    the products are narrowed: autocast converts their inputs, but not those of other modules. Buffers, such as the
    frequencies of rotary positions, are computed, not stored: they stay in float32.
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
    """Return the loss scaler, which does nothing but for float16 (arXiv 1710.03740).

    There every gradient that is not finite halves the scale, and 2000 steps without one double it.
    """
    return GradScaler(device.type, enabled=precision == "fp16")


def scaler_state(some: GradScaler) -> Tensor:
    """Return a scaler's scale, and the steps since it last changed, for `restore_scaler`."""
    state = some.state_dict()
    return torch.tensor([state.get("scale", 1.0), state.get("_growth_tracker", 0)], dtype=torch.float64)


def restore_scaler(some: GradScaler, state: Tensor) -> None:
    """Restore what `scaler_state` returned."""
    if some.is_enabled():
        some.load_state_dict(some.state_dict() | {"scale": float(state[0]), "_growth_tracker": int(state[1])})
