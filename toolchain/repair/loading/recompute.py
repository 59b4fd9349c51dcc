"""Gradient checkpointing (arXiv 1604.06174): a block keeps only its input, and is recomputed in the backward pass."""

from collections.abc import Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(model: nn.Module, blocks: Iterable[str]) -> None:
    """Recompute the blocks of these names in the backward pass, from now on.

    transformers' own switch works in training mode only, which turns dropout on too; here nothing else changes. A block must
    not draw random numbers, since the state of their generator is not restored.
    """
    for name in blocks:
        block = model.get_submodule(name)
        setattr(block, "forward", partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False))  # noqa: B010
