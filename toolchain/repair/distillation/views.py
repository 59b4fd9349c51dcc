"""What is read from a model's forward pass: the logits of the answers' tokens and hidden states of the blocks.

Shapes: B samples, T tokens, N answer tokens, V tokens of the vocabulary, D hidden size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vlmc.toolchain.repair.feeding import Batch, answer_logits
from vlmc.toolchain.repair.loading import autocast
from vlmc.toolchain.settings import Precision


class Seen(NamedTuple):
    """Logits (N, V) that predict the answers' tokens, and hidden states (N, D) at the same positions, block by block."""

    logits_NV: Tensor
    hidden_ND: Sequence[Tensor] = ()


@dataclass(frozen=True)
class View:
    """What a run reads from its models: the blocks whose outputs the loss uses, by name, and the type of the products."""

    blocks: Sequence[str] = ()
    precision: Precision = "fp32"

    def of(self, model: nn.Module, batch: Batch) -> Seen:
        """Run a model on a batch on its device."""
        with autocast(batch.answers_N.device, self.precision), self._watching(model) as states_BTD:
            logits_NV = answer_logits(model, batch)
        wide = torch.promote_types(logits_NV.dtype, torch.float32)
        return Seen(logits_NV.to(wide), [state[:, batch.columns_K][batch.answered_BK] for state in states_BTD])

    @contextmanager
    def _watching(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Yield a list that is filled with the blocks' outputs (B, T, D)."""
        found: list[Tensor] = []

        def keep(module: nn.Module, given: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        handles = [model.get_submodule(name).register_forward_hook(keep) for name in self.blocks]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()
