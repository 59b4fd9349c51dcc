"""What is trained for one step: a pruned model, its masks, first values for the adapters, and the step itself.

Shapes: O out features, I in features, R rank.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn

from vlmc.runtime.sparsity import SparsityPattern

Pairs = dict[str, tuple[Tensor, Tensor]]
"""A (R, I) and B (O, R), or what belongs to them, by the layer's name."""


class Subject(ABC):
    """A pruned model and a training step on it, the same for every contestant.

    `masks` are the keep-masks (O, I) of its pruned Linears by name, `interface` names the Linears that stay dense and get
    plain LoRA, `given` is what a step takes besides the model.
    """

    scale = 2.0

    def __init__(
        self,
        name: str,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        given: Sequence[Tensor],
        interface: Sequence[str] = (),
    ) -> None:
        self.name, self.model, self.masks, self.given, self.interface = name, model, dict(masks), list(given), interface

    @abstractmethod
    def step(self, model: nn.Module, *, checkpointed: bool = False) -> None:
        """Do one forward and backward pass of a twin of the model, with adapters on."""

    @abstractmethod
    def truth(self, pairs: Pairs) -> Pairs:
        """Return the gradients of the masked update with these A and B, computed in float64."""

    def twin(self) -> nn.Module:
        """Return a model of its own on the same weights."""
        return deepcopy(self.model, {id(one): one for one in chain(self.model.parameters(), self.model.buffers())})

    def draw(self, rank: int) -> Pairs:
        """Return values for A and B of every adapter: B small, as in training, but not zero, so that A has a gradient."""
        generator = torch.Generator().manual_seed(1)
        found = {}
        for name in (*self.masks, *self.interface):
            rows, columns = self.model.get_submodule(name).get_parameter("weight").shape
            a_RI = torch.randn(rank, columns, generator=generator) / columns**0.5
            found[name] = a_RI, 0.1 * torch.randn(rows, rank, generator=generator) / rows**0.5
        return found


def prune(linears: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """Prune these layers to 2:4 in place, by magnitude; return their keep-masks (O, I)."""
    pattern, masks = SparsityPattern.parse("2:4"), {}
    for name, linear in linears.items():
        masks[name] = pattern.mask(linear.weight.detach().abs())
        linear.weight.data *= masks[name]
    return masks
