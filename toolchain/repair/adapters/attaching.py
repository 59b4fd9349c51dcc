"""Adapters: what is trained on frozen Linear layers; putting them on a model, off it, and out of its answers.

Shapes: O out features, I in features, P bytes that hold the bits of I; `*` any leading dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmc.runtime.errors import InputError
from vlmc.toolchain.repair.kernels.masked_linear import pack, unpack, wide
from vlmc.toolchain.settings import Kernel


@dataclass(frozen=True)
class AdapterPlan:
    """What to put on one Linear: the kind of adapter, rank, alpha, a pruned layer's keep-mask, the kernel.

    The mask is boolean (O, I), or packed already, bytes (O, P).
    """

    kind: type["Adapted"]
    rank: int
    alpha: float
    mask: Tensor | None = None
    kernel: Kernel = "tiled"


class Adapted(nn.Module, ABC):
    """A frozen Linear with something trained on top, which changes nothing at first.

    `weight` and `bias` are the Linear's own parameters, under their own names; updates are scaled by s = alpha / rank.
    What is trained is float32 at least. Nothing is updated while `enabled` is off.
    """

    parts: ClassVar[tuple[str, ...]]  # names of the trained parameters
    packed_OP: Tensor | None

    def __init__(self, linear: nn.Linear, plan: AdapterPlan, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.rank, self.alpha, self.scale, self.kernel = plan.rank, plan.alpha, plan.alpha / plan.rank, plan.kernel
        packed_OP = pack(plan.mask) if plan.mask is not None and plan.mask.dtype == torch.bool else plan.mask
        self.register_buffer("packed_OP", packed_OP, persistent=False)
        self.enabled = True
        self.begin(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (*, I) to (*, O)."""
        return self.adapted(x) if self.enabled else F.linear(x, self.weight, self.bias)

    @property
    def mask_OI(self) -> Tensor | None:
        """The boolean keep-mask (O, I), unpacked; None on a layer that is dense."""
        return None if self.packed_OP is None else unpack(self.packed_OP, self.weight.shape[1], torch.bool)

    def zeros(self, *sizes: int) -> Tensor:
        """Return zeros in float32 at least, on the weight's device; on the CPU where the weight has no values yet."""
        device = torch.device("cpu") if self.weight.is_meta else self.weight.device
        return torch.zeros(sizes, dtype=wide(self.weight), device=device)

    def trained(self) -> dict[str, nn.Parameter]:
        """Map the name of every trained parameter to it."""
        return {part: self.get_parameter(part) for part in self.parts}

    @abstractmethod
    def begin(self, generator: torch.Generator) -> None:
        """Make the trained parameters, with first values drawn from the generator."""

    @abstractmethod
    def adapted(self, x: Tensor) -> Tensor:
        """Map (*, I) to (*, O) with the update in."""

    @abstractmethod
    def merged(self) -> Tensor:
        """Return the weight (O, I) with the update in, without gradient."""


class Adapters:
    """The adapters on one model, by the names of the layers that they sit on."""

    def __init__(self, model: nn.Module, originals: Mapping[str, nn.Linear], layers: Mapping[str, Adapted]) -> None:
        self.model, self.originals, self.layers = model, dict(originals), dict(layers)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Map `<layer>.<part>`, such as `<layer>.lora_A`, to what is trained, in the order of the plan."""
        return {f"{name}.{part}": one for name, layer in self.layers.items() for part, one in layer.trained().items()}

    @contextmanager
    def off(self) -> Iterator[None]:
        """Let the model answer as if no adapter were there, those of the interface included."""
        before = {name: layer.enabled for name, layer in self.layers.items()}
        try:
            for layer in self.layers.values():
                layer.enabled = False
            yield
        finally:
            for name, layer in self.layers.items():
                layer.enabled = before[name]

    def detach(self) -> None:
        """Put the Linears back as they were; what was trained stays in `layers`."""
        for name, linear in self.originals.items():
            self.model.set_submodule(name, linear)


def attach(model: nn.Module, plan: Mapping[str, AdapterPlan], seed: int = 0) -> Adapters:
    """Freeze the whole model and put an adapter on every Linear that the plan names.

    Raises:
        InputError: the plan names what is no Linear of this model, or a mask does not fit its weight.
    """
    linears = {name: find_linear(model, name, one.mask) for name, one in plan.items()}
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    layers = {name: one.kind(linears[name], one, generator) for name, one in plan.items()}
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return Adapters(model, linears, layers)


def find_linear(model: nn.Module, name: str, mask: Tensor | None) -> nn.Linear:
    """Return the Linear of that name that an adapter is for.

    Raises:
        InputError: there is none, or the mask, boolean (O, I) or packed (O, P), does not fit its weight.
    """
    try:
        found = model.get_submodule(name)
    except AttributeError:
        raise InputError(f"the adapter is for a layer {name}, which this model lacks") from None
    if not isinstance(found, nn.Linear):
        raise InputError(f"the adapter is for {name}, which is no Linear in this model but a {type(found).__name__}")
    rows, columns = found.weight.shape
    if mask is not None and mask.shape != (rows, columns if mask.dtype == torch.bool else -(-columns // 8)):
        raise InputError(f"the mask of {name} is {tuple(mask.shape)}, its weight {(rows, columns)}")
    return found
