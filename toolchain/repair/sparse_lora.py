"""RESSA's SparseLoRA, mask-preserving LoRA (arXiv 2404.02424), and plain LoRA for the dense interface.

"SparseLoRA" is also the name of another method (arXiv 2506.16500, contextual sparsity), which this is not.
Shapes: O out features, I in features, R rank; `*` any leading dimensions.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmc.runtime.errors import InputError
from vlmc.toolchain.repair.masked_linear import masked_linear, pack, unpack, updated, wide


@dataclass(frozen=True)
class AdapterPlan:
    """What to put on one Linear: SparseLoRA where it has a boolean keep-mask (O, I), plain LoRA where it has none."""

    rank: int
    alpha: float
    mask_OI: Tensor | None = None


class Adapted(nn.Module, ABC):
    """A frozen Linear with a trained low-rank update `s B A`, s = alpha / R; starts as the Linear itself, for B is 0.

    `weight` and `bias` are the Linear's own parameters, under their own names. Nothing is updated while `enabled` is off.
    """

    def __init__(self, linear: nn.Linear, plan: AdapterPlan, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.rank, self.alpha, self.scale = plan.rank, plan.alpha, plan.alpha / plan.rank
        self.lora_A = nn.Parameter(linear.weight.new_empty(plan.rank, linear.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(linear.out_features, plan.rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5), generator=generator)
        self.enabled = True

    def forward(self, x: Tensor) -> Tensor:
        """Map (*, I) to (*, O)."""
        return self.adapted(x) if self.enabled else F.linear(x, self.weight, self.bias)

    @abstractmethod
    def adapted(self, x: Tensor) -> Tensor:
        """Map (*, I) to (*, O) with the update in."""

    @abstractmethod
    def merged(self) -> Tensor:
        """Return the weight (O, I) with the update in, without gradient."""


class SparseLoRA(Adapted):
    """`W_hat = W + s (B A) * M`: gradients pass through the mask, so pruned weights never move (RESSA, section 3.3).

    The mask is the one given, never `W != 0`: a kept weight that is zero is trained like any other. It is kept as one bit
    a weight, and the update is never whole in memory while it is trained: see `masked_linear`.
    """

    packed_OP: Tensor

    def __init__(self, linear: nn.Linear, plan: AdapterPlan, generator: torch.Generator) -> None:
        super().__init__(linear, plan, generator)
        assert plan.mask_OI is not None
        self.register_buffer("packed_OP", pack(plan.mask_OI), persistent=False)

    @property
    def mask_OI(self) -> Tensor:
        """The boolean keep-mask (O, I), unpacked."""
        return unpack(self.packed_OP, self.weight.shape[1], torch.bool)

    def adapted(self, x: Tensor) -> Tensor:
        return masked_linear(x, self.weight, self.bias, self.packed_OP, self.lora_A, self.lora_B, self.scale)

    @torch.no_grad()
    def merged(self) -> Tensor:
        mask_OI = unpack(self.packed_OP, self.weight.shape[1], wide(self.weight))
        return updated(self.weight, mask_OI, self.lora_A, self.lora_B, self.scale).to(self.weight.dtype)


class LoRA(Adapted):
    """`y = x W^T + s (x A^T) B^T` (arXiv 2106.09685), for layers that stay dense."""

    def adapted(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)

    @torch.no_grad()
    def merged(self) -> Tensor:
        return torch.addmm(self.weight, self.lora_B, self.lora_A, alpha=self.scale)


class Adapters:
    """The adapters on one model, by the names of the layers that they sit on."""

    def __init__(self, model: nn.Module, originals: Mapping[str, nn.Linear], layers: Mapping[str, Adapted]) -> None:
        self.model, self.originals, self.layers = model, dict(originals), dict(layers)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Map `<layer>.lora_A` and `<layer>.lora_B` to what is trained, in the order of the plan."""
        return {
            f"{name}.{part}": parameter
            for name, layer in self.layers.items()
            for part, parameter in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
        }

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
    linears = {name: _linear(model, name, one) for name, one in plan.items()}
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    layers = {name: _adapted(linears[name], one, generator) for name, one in plan.items()}
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return Adapters(model, linears, layers)


def _linear(model: nn.Module, name: str, plan: AdapterPlan) -> nn.Linear:
    try:
        found = model.get_submodule(name)
    except AttributeError:
        raise InputError(f"the adapter is for a layer {name}, which this model lacks") from None
    if not isinstance(found, nn.Linear):
        raise InputError(f"the adapter is for {name}, which is no Linear in this model but a {type(found).__name__}")
    if plan.mask_OI is not None and plan.mask_OI.shape != found.weight.shape:
        raise InputError(f"the mask of {name} is {tuple(plan.mask_OI.shape)}, its weight {tuple(found.weight.shape)}")
    return found


def _adapted(linear: nn.Linear, plan: AdapterPlan, generator: torch.Generator) -> Adapted:
    return LoRA(linear, plan, generator) if plan.mask_OI is None else SparseLoRA(linear, plan, generator)
