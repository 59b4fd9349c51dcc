"""Block reconstruction: train the kept weights until the pruned block gives out what the dense one does.

After EBFT (arXiv 2402.12419) and arXiv 2510.14444: a whole block at a time, so that its non-linear parts are included; the
loss is the mean squared error. Shapes: O out features, I in features of a layer.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmc.toolchain.families.base import linears

RATE = 2e-2  # peak learning rate, as a share of the root mean square of a layer's kept weights
BATCH = 8  # samples per step, run one after the other


@dataclass(frozen=True)
class Objective:
    """What a block is trained to give out for samples 0 to count - 1.

    `run` runs the block on a sample's input; `target` returns what should come out, of the same shape.
    """

    count: int
    run: Callable[[int], Tensor]
    target: Callable[[int], Tensor]

    def squares(self, sample: int) -> Tensor:
        """Return the squared differences of one sample."""
        return (self.run(sample).float() - self.target(sample).float()).square()

    @torch.no_grad()
    def error(self) -> float:
        """Return the mean squared error over all samples."""
        sums = [(float(squares.sum()), squares.numel()) for squares in map(self.squares, range(self.count))]
        return sum(total for total, _ in sums) / sum(number for _, number in sums)


@dataclass(frozen=True)
class Reconstruction:
    """Mean squared errors before and after, and the epoch whose weights were kept; 0: those from before the training."""

    before: float
    after: float
    epoch: int


def reconstruct(
    block: nn.Module, masks: Mapping[str, Tensor], objective: Objective, epochs: int, seed: int
) -> Reconstruction:
    """Train in place the weights that the masks (O, I) keep, by their layers' names in the block; pruned ones stay +0.0.

    AdamW updates float32 copies, which are cast for each step, without decay and at a rate that falls to 0 along a cosine.
    The weights of the epoch with the least error over all samples stay, or those from before where no epoch lowered it.
    Everything else in the block is left alone. The seed draws the order of the samples.
    """
    layers = [_Layer(layer.weight, masks[name]) for name, layer in linears(block) if name in masks]
    weights = [layer.weight for layer in layers]
    before = best = objective.error()
    kept, kept_epoch = [weight.detach().clone() for weight in weights], 0
    if before > 0:
        with _training(block, weights):
            for epoch, _ in enumerate(_train(layers, objective, epochs, seed, before), 1):
                if (error := objective.error()) < best:
                    best, kept_epoch = error, epoch
                    kept = [weight.detach().clone() for weight in weights]
    for weight, kept_OI in zip(weights, kept, strict=True):
        weight.data.copy_(kept_OI)
    return Reconstruction(before, best, kept_epoch)


class _Layer:
    """A layer's weight (O, I), which the block computes with, and the float32 copy that is trained."""

    def __init__(self, weight: Tensor, keep_OI: Tensor) -> None:
        self.weight, self._pruned_OI = weight, ~keep_OI.to(weight.device)
        self.copy = weight.detach().float().masked_fill(self._pruned_OI, 0.0)
        self.size = float(self.copy.square().sum() / keep_OI.sum().clamp_min(1)) ** 0.5

    def take_gradient(self) -> None:
        """Move the gradient from the weight to the copy."""
        if self.weight.grad is not None:
            self.copy.grad = self.weight.grad.float().masked_fill_(self._pruned_OI, 0.0)
            self.weight.grad = None

    def give_weight(self) -> None:
        """Cast the copy into the weight."""
        self.weight.data.copy_(self.copy.masked_fill(self._pruned_OI, 0.0))


def _train(layers: Sequence[_Layer], objective: Objective, epochs: int, seed: int, error: float) -> Iterator[None]:
    """Train; yield after every epoch. Losses are relative to the first error: AdamW's epsilon is small beside them."""
    optimizer = torch.optim.AdamW([{"params": [layer.copy], "size": layer.size} for layer in layers], weight_decay=0.0)
    draw = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(objective.count / BATCH)
    done = 0
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(objective.count, generator=draw), BATCH):
            for sample in batch.tolist():
                (objective.squares(sample).mean() / error).backward()  # type: ignore[no-untyped-call]
            _step(layers, optimizer, RATE * 0.5 * (1 + math.cos(math.pi * done / steps)))
            done += 1
        yield


def _step(layers: Sequence[_Layer], optimizer: torch.optim.Optimizer, rate: float) -> None:
    for layer in layers:
        layer.take_gradient()
    for group in optimizer.param_groups:
        group["lr"] = rate * group["size"]
    optimizer.step()
    for layer in layers:
        layer.give_weight()


@contextmanager
def _training(block: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """Inside, gradients flow to these weights alone."""
    flags = [(parameter, parameter.requires_grad) for parameter in block.parameters()]
    try:
        block.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
