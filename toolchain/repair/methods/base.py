"""What a repair method is: the adapters that it trains, whether the dense model teaches, and what becomes of them.

Shapes: O out features, I in features, P bytes that hold the bits of I; `*` any leading dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmc.toolchain.repair.kernels import pack, unpack, wide
from vlmc.toolchain.settings import Kernel


@dataclass(frozen=True)
class AdapterSpec:
    """What to put on one Linear: the kind of adapter, rank, alpha, a pruned layer's keep-mask, the kernel.

    The mask is boolean (O, I), or packed, bytes (O, P).
    """

    kind: type["Adapted"]
    rank: int
    alpha: float
    mask: Tensor | None = None
    kernel: Kernel = "tiled"


class Adapted(nn.Module, ABC):
    """A frozen Linear with an adapter, which changes nothing at first.

    `weight` and `bias` are the Linear's own parameters, under their own names; updates are scaled by s = alpha / rank.
    What is trained is float32 at least. Nothing is updated while `enabled` is off.
    """

    parts: ClassVar[tuple[str, ...]]  # names of the trained parameters
    packed_OP: Tensor | None

    def __init__(self, linear: nn.Linear, spec: AdapterSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.rank, self.alpha, self.scale, self.kernel = spec.rank, spec.alpha, spec.alpha / spec.rank, spec.kernel
        packed_OP = pack(spec.mask) if spec.mask is not None and spec.mask.dtype == torch.bool else spec.mask
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
        """Return the trained parameters by their names."""
        return {part: self.get_parameter(part) for part in self.parts}

    @abstractmethod
    def begin(self, generator: torch.Generator) -> None:
        """Create the trained parameters, with first values drawn from the generator."""

    @abstractmethod
    def adapted(self, x: Tensor) -> Tensor:
        """Map (*, I) to (*, O) with the update in."""

    @abstractmethod
    def merged(self) -> Tensor:
        """Return the weight (O, I) with the update in, without gradient."""


@dataclass(frozen=True)
class Method:
    """One way to repair: the adapter of a pruned layer, and that of a layer of the interface, which is dense (`dense`).

    `merged` is the adapter that a pruned layer's is merged as: masked, whatever it was in training; None: it is never
    merged. `rate` is the peak learning rate, relative to RESSA's. `peft_type` is what peft is told of the saved adapter.
    """

    name: str
    url: str
    pruned: type[Adapted]
    merged: type[Adapted] | None
    dense: type[Adapted]
    distilled: bool = True
    rate: float = 1.0
    peft_type: str = "LORA"

    def specs(
        self, masks: Mapping[str, Tensor], dense: Iterable[str], rank: int, alpha: float, kernel: Kernel = "tiled"
    ) -> dict[str, AdapterSpec]:
        """Return an adapter for every layer that has a keep-mask, boolean or packed, and for these dense ones."""
        specs = {name: AdapterSpec(self.pruned, rank, alpha, mask, kernel) for name, mask in masks.items()}
        return specs | {name: AdapterSpec(self.dense, rank, alpha) for name in dense}
