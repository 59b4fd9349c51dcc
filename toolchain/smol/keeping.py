"""What keeps the language in the last stage of training `smol`: on plain text, the model says what it said before."""

from functools import cached_property
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vlmc.toolchain.repair.adapters.attaching import Adapters
from vlmc.toolchain.smol.text import for_training, logits, windows


class Keeping:
    """Text, and how far an adapted language model is from itself without its adapters on it."""

    def __init__(self, model: Any, adapters: Adapters, tokenizer: Any) -> None:
        self._model, self._adapters, self._tokenizer = model, adapters, tokenizer

    def loss(self, tokens: int, random: Random) -> Tensor:
        """Return KL(before || now), the mean over the first tokens of a window, in nats (arXiv 1503.02531, at T = 1)."""
        ids_T = self._windows_NT[random.randrange(len(self._windows_NT))][:tokens]
        with self._adapters.off(), torch.no_grad():
            before_TV = logits(self._model, ids_T[None])[0].log_softmax(-1)
        now_TV = logits(self._model, ids_T[None])[0].log_softmax(-1)
        return functional.kl_div(now_TV, before_TV, reduction="batchmean", log_target=True)

    @cached_property
    def _windows_NT(self) -> Tensor:
        return windows(self._tokenizer, for_training())
