"""Gradient checkpointing (arXiv 1604.06174): a block keeps its input alone, and is run again in the backward pass."""

from collections.abc import Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(model: nn.Module, blocks: Iterable[str]) -> None:
    """Let the blocks of these names be run again in the backward pass, from now on.

    transformers' own switch works in training mode alone, which turns on dropout too; nothing else about the model
    changes here. Nothing in a block may draw random numbers: its generator is not set back.
    """
    for name in blocks:
        block = model.get_submodule(name)
        setattr(block, "forward", partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False))  # noqa: B010
