"""The weights of one product, several of them: together they leave the cache before they are needed again, as in a model."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vlmc.runtime.kernels.packing import Array, Packed, ValueType, pack

COLD = 128 << 20  # bytes of packed bf16 weights that no cache of one socket's core complex keeps
MOST = 1 << 30  # bytes of fp32 weights
COPIES = 48


@dataclass(frozen=True)
class Subject:
    """`copies` random 2:4 weights (outputs, inputs)."""

    inputs: int
    outputs: int
    copies: int
    is_cold: bool
    """Whether they all together are more than the cache holds."""

    @classmethod
    def of(cls, inputs: int, outputs: int, cold: int = COLD) -> "Subject":
        """Return as many copies as are cold, and no more than fit."""
        wanted = -(-cold // (inputs * outputs * 9 // 8))
        copies = max(1, min(wanted, MOST // (4 * inputs * outputs), COPIES))
        return cls(inputs, outputs, copies, copies >= wanted)

    @property
    def name(self) -> str:
        """Its sizes in words."""
        return f"{self.inputs} to {self.outputs}"

    @cached_property
    def weights(self) -> list[Array]:
        """Float32 (outputs, inputs), two of four kept, scaled so that outputs are about 1."""
        return [self._weight(np.random.default_rng(seed)) for seed in range(self.copies)]

    def packed(self, kind: ValueType, *, dense: bool = False) -> list[Packed]:
        """Return the weights as the kernels read them."""
        return [pack(weight, kind, dense=dense) for weight in self.weights]

    def x(self, rows: int) -> Array:
        """Return random activations in float32."""
        return np.random.default_rng(rows).standard_normal((rows, self.inputs), np.float32)

    def _weight(self, draw: np.random.Generator) -> Array:
        weight = draw.standard_normal((self.outputs * self.inputs // 4, 4), np.float32)
        weight *= (2 / self.inputs) ** 0.5
        first = draw.integers(0, 4, len(weight))
        second = (first + draw.integers(1, 4, len(weight))) % 4
        every = np.arange(len(weight))
        weight[every, first] = weight[every, second] = 0
        return weight.reshape(self.outputs, self.inputs)
