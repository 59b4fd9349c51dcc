"""One Linear layer, its input and the gradient of its output.

Shapes: L tokens, O out features, I in features, R rank.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_steps.subject import Pairs, Subject, prune

SHAPES = {"1024": (1024, 1024), "2048": (2048, 2048), "4096": (4096, 4096), "11008": (11008, 4096)}
"""Out and in features of each layer; the last is the widest of a 7B model's."""
ONLY = "0"  # the layer's name in the model


class Layer(Subject):
    """A pruned Linear; its input asks for its gradient, as it does inside a model."""

    def __init__(self, name: str, tokens: int) -> None:
        rows, columns = SHAPES[name]
        draw = torch.Generator().manual_seed(0)
        linear = nn.Linear(columns, rows, bias=False, device="meta")
        linear.weight = nn.Parameter(torch.randn(rows, columns, generator=draw) / columns**0.5, requires_grad=False)
        self.x_LI = torch.randn(tokens, columns, generator=draw).requires_grad_()
        self.grad_LO = torch.randn(tokens, rows, generator=draw)
        super().__init__(name, nn.Sequential(linear), prune({ONLY: linear}), [self.x_LI, self.grad_LO])

    def step(self, model: nn.Module, *, checkpointed: bool = False) -> None:
        self.x_LI.grad = None
        y_LO = checkpoint(model, self.x_LI, use_reentrant=False) if checkpointed else model(self.x_LI)
        y_LO.backward(self.grad_LO)
        self.x_LI.grad = None

    def truth(self, pairs: Pairs) -> Pairs:
        a_RI, b_OR = pairs[ONLY]
        masked_OI = (self.grad_LO.double().T @ self.x_LI.detach().double()).mul_(self.masks[ONLY])
        return {ONLY: (self.scale * b_OR.double().T @ masked_OI, self.scale * masked_OI @ a_RI.double().T)}
