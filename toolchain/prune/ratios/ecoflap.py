"""ECoFLaP: blocks keep weights as the loss needs them, by gradients from forward passes alone (arXiv 2310.02998)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.toolchain.prune.ratios.sharing import meet

EPSILON = 1e-3  # how far weights are moved, in standard deviations of the noise
MARGIN = 0.1  # how far a block's fraction may lie above the target
_LEAST = 1e-12  # of the highest score: no block scores less


@torch.no_grad()
def zeroth_order(
    blocks: Mapping[str, Sequence[Tensor]],
    loss: Callable[[int], float],
    batches: int,
    seed: int,
    draws: int = 1,
    epsilon: float = EPSILON,
) -> dict[str, float]:
    """Return the norm of the loss's gradient at each block's weights, estimated without a backward pass.

    `blocks` holds the weights that the model computes with: they are moved, and restored bit for bit on return. `loss`
    runs the whole dense model on the batch of that number. For Gaussian z, (L(W + eps z) - L(W - eps z)) / 2 eps is close to
    z times the gradient g; its absolute value is |g| sqrt(2 / pi) on average, here over all batches and draws. That takes
    2 x blocks x batches x draws forward passes.

    Raises:
        InputError: a loss is NaN or infinite; the message names the block.
    """
    seeds = torch.Generator().manual_seed(seed)
    norms = {}
    for name, weights in blocks.items():
        total = 0.0
        with _kept(weights) as originals:
            for trial in range(batches * draws):
                noise = int(torch.randint(2**62, (), generator=seeds))
                losses = []
                for sign in (1, -1):
                    _move(weights, originals, sign * epsilon, noise)
                    losses.append(loss(trial // draws))
                total += abs(losses[0] - losses[1]) / (2 * epsilon)
        norms[name] = math.sqrt(math.pi / 2) * total / (batches * draws)
        if not math.isfinite(norms[name]):
            raise InputError(f"calibration gives NaN or infinite losses near the weights of {name}: check the model")
    return norms


def importance(weights: Sequence[Tensor], norm: float) -> float:
    """Return a block's score, the sum of |W| times the norm of its gradient."""
    return norm * sum(float(weight.detach().float().abs().sum()) for weight in weights)


def ecoflap(scores: Mapping[str, float], sizes: Mapping[str, int], target: float) -> dict[str, float]:
    """Return each block's fraction of zeros.

    Every block keeps 1 - alpha of its weights, alpha = target + 0.1; the rest of what is kept is shared out by the blocks'
    scores, and what a block cannot take goes to the others. `sizes` are the blocks' numbers of weights.
    """
    cap = min(target + MARGIN, 1.0)
    worth = {block: max(score, _LEAST * max(scores.values())) / sizes[block] for block, score in scores.items()}
    least = min(worth.values())
    if least <= 0:  # all scores are zero
        return dict.fromkeys(scores, target)

    def at(level: float) -> dict[str, float]:
        return {block: min(max(cap + level * one, 0.0), cap) for block, one in worth.items()}

    return meet(target, sizes, at, -cap / least, 0.0)


def _move(weights: Sequence[Tensor], originals: Sequence[Tensor], distance: float, noise: int) -> None:
    draw = torch.Generator(weights[0].device).manual_seed(noise)
    for weight, original in zip(weights, originals, strict=True):
        weight.copy_(original + distance * torch.randn(original.shape, generator=draw, device=weight.device))


@contextmanager
def _kept(weights: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield copies of the weights, and restore the weights at the end."""
    originals = [weight.clone() for weight in weights]
    try:
        yield originals
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.copy_(original)
