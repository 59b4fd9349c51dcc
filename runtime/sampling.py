"""Choosing the next token from its logits.

Shapes: V vocabulary.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.options import Options


@final
class Sampler:
    """Chooses the tokens of one answer: greedy at temperature 0, otherwise at random; `prompt` are the ids before it."""

    def __init__(self, options: Options, prompt: Sequence[int] = ()) -> None:
        self._options = options
        self._seen = set(prompt) if options.repetition_penalty != 1 else set()

    @cached_property
    def _random(self) -> np.random.Generator:
        return np.random.default_rng(self._options.seed)

    @property
    def takes_likeliest(self) -> bool:
        """Whether the next token is that of the greatest logit."""
        return self._options.temperature == 0 and self._options.repetition_penalty == 1

    def choose(self, logits_V: NDArray[np.floating]) -> int:
        """Return the id of the next token, given its logits (V)."""
        logits_V = self._penalised(logits_V)
        if self._options.temperature == 0:
            token = int(logits_V.argmax())
        else:
            token = int(self._random.choice(logits_V.size, p=self._drawn_from(logits_V)))
        if self._options.repetition_penalty != 1:
            self._seen.add(token)
        return token

    def probabilities(self, logits_V: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probabilities (V) that the next token is drawn from."""
        return self._drawn_from(self._penalised(logits_V))

    def _penalised(self, logits_V: NDArray[np.floating]) -> NDArray[np.floating]:
        """Make tokens that were seen less likely: CTRL (arXiv 1909.05858), section 4.1."""
        seen = [token for token in self._seen if token < logits_V.size]
        if not seen:
            return logits_V
        penalised_V, penalty = logits_V.copy(), self._options.repetition_penalty
        some = logits_V[seen]
        penalised_V[seen] = np.where(some < 0, some * penalty, some / penalty)
        return penalised_V

    def _drawn_from(self, logits_V: NDArray[np.floating]) -> NDArray[np.float64]:
        options = self._options
        weights: NDArray[np.float64] = np.exp((logits_V.astype(np.float64) - logits_V.max()) / options.temperature)
        likeliest_first = (-weights).argsort(kind="stable")
        if options.top_k:
            weights[likeliest_first[options.top_k :]] = 0
        share = weights[likeliest_first] / weights.sum()
        weights[likeliest_first[share.cumsum() - share >= options.top_p]] = 0
        weights /= weights.sum()
        return weights
