"""Looking at a model's answers: the logits of the answers' tokens and, where asked for, hidden states of the blocks.

Shapes: B samples, T tokens, N answer tokens, V words of the vocabulary, D hidden size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vlmc.toolchain.repair.feeding.batches import Batch, answer_logits
from vlmc.toolchain.repair.training.precision import autocast
from vlmc.toolchain.settings import Precision


class Seen(NamedTuple):
    """Logits (N, V) that predict the answers' tokens, and hidden states (N, D) at the same places, block by block."""

    logits_NV: Tensor
    hidden_ND: Sequence[Tensor] = ()


@dataclass(frozen=True)
class View:
    """How models are looked at in one run: the names of the blocks whose output counts, and the products' type."""

    blocks: Sequence[str] = ()
    precision: Precision = "fp32"

    def of(self, model: nn.Module, batch: Batch) -> Seen:
        """Run a model on a batch that lies on its device."""
        with autocast(batch.answers_N.device, self.precision), self._watching(model) as states_BTD:
            logits_NV = answer_logits(model, batch)
        wide = torch.promote_types(logits_NV.dtype, torch.float32)
        return Seen(logits_NV.to(wide), [state[:, batch.columns_K][batch.answered_BK] for state in states_BTD])

    @contextmanager
    def _watching(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Yield a list that the blocks' outputs (B, T, D) go into."""
        found: list[Tensor] = []

        def keep(module: nn.Module, given: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        handles = [model.get_submodule(name).register_forward_hook(keep) for name in self.blocks]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()
