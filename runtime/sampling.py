"""Choosing the next token from its logits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.errors import InputError


@dataclass(frozen=True)
class Sampler:
    """Greedy at temperature 0, otherwise random among the likeliest tokens that together have probability `top_p`.

    Raises:
        InputError: a value is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature {self.temperature} is out of range: give 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p} is out of range: give more than 0 and at most 1")

    def choose(self, logits: NDArray[np.floating], random: np.random.Generator) -> int:
        """Return the id of the next token, given its logits (V)."""
        if self.temperature == 0:
            return int(logits.argmax())
        return int(random.choice(logits.size, p=self.probabilities(logits)))

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probabilities (V) that are sampled from."""
        weights: NDArray[np.float64] = np.exp((logits.astype(np.float64) - logits.max()) / self.temperature)
        likeliest_first = (-weights).argsort(kind="stable")
        share = weights[likeliest_first] / weights.sum()
        weights[likeliest_first[share.cumsum() - share >= self.top_p]] = 0
        weights /= weights.sum()
        return weights
