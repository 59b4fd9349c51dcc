"""What a teacher says of the answers' tokens, whole or in part, and how far a student is from it.

Shapes: N answer tokens, V words of the vocabulary, K words that are kept, D hidden size.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.toolchain.settings import Direction


@dataclass(frozen=True)
class Target(ABC):
    """A teacher's prediction of every answer token."""

    @abstractmethod
    def divergence(self, student_NV: Tensor, direction: Direction, temperature: float) -> Tensor:
        """Return T^2 times the mean over tokens of KL(teacher || student), `forward`, or KL(student || teacher), `reverse`.

        T divides the logits of both (arXiv 1503.02531); T^2 keeps the gradient's size.
        """

    @property
    def hidden_ND(self) -> Sequence[Tensor]:
        """The teacher's hidden states (N, D), block by block; none where they were not asked for."""
        return ()


@dataclass(frozen=True)
class Whole(Target):
    """All of the teacher's logits (N, V), and hidden states where they were asked for."""

    logits_NV: Tensor
    states_ND: Sequence[Tensor] = ()

    @property
    def hidden_ND(self) -> Sequence[Tensor]:
        return self.states_ND

    def divergence(self, student_NV: Tensor, direction: Direction, temperature: float) -> Tensor:
        student, teacher = log_shares(student_NV, temperature), log_shares(self.logits_NV, temperature)
        true, guess = (teacher, student) if direction == "forward" else (student, teacher)
        return temperature**2 * F.kl_div(guess, true, log_target=True, reduction="batchmean")


@dataclass(frozen=True)
class TopWords(Target):
    """The teacher's likeliest words and the logarithms of their shares (N, K); the rest is one word, of log share (N).

    Lumping words together can only lower a divergence: this is at most the true one (data processing inequality).
    """

    words_NK: Tensor
    log_NK: Tensor
    rest_N: Tensor

    @classmethod
    def of(cls, logits_NV: Tensor, temperature: float, count: int) -> "TopWords":
        """Keep the `count` likeliest words, but not all of them."""
        log_NV = log_shares(logits_NV, temperature)
        log_NK, words_NK = log_NV.topk(min(count, log_NV.shape[1] - 1))
        return cls(words_NK, log_NK, _log_rest(log_NV, words_NK))

    def divergence(self, student_NV: Tensor, direction: Direction, temperature: float) -> Tensor:
        log_NV = log_shares(student_NV, temperature)
        student = torch.cat([log_NV.gather(1, self.words_NK), _log_rest(log_NV, self.words_NK)[:, None]], 1)
        teacher = torch.cat([self.log_NK, self.rest_N[:, None]], 1)
        true, guess = (teacher, student) if direction == "forward" else (student, teacher)
        return temperature**2 * F.kl_div(guess, true, log_target=True, reduction="batchmean")


@dataclass(frozen=True)
class DrawnWords(Target):
    """Words (N, K) drawn with the teacher's probabilities, and its entropy (N): unbiased (as in arXiv 2503.16870)."""

    words_NK: Tensor
    entropy_N: Tensor

    @classmethod
    def of(cls, logits_NV: Tensor, temperature: float, count: int, generator: torch.Generator) -> "DrawnWords":
        """Draw `count` words for each token, with replacement."""
        log_NV = log_shares(logits_NV, temperature)
        words_NK = torch.multinomial(log_NV.exp(), count, replacement=True, generator=generator)
        return cls(words_NK, -(log_NV.exp() * log_NV.clamp_min(-1e4)).sum(1))

    def divergence(self, student_NV: Tensor, direction: Direction, temperature: float) -> Tensor:
        if direction == "reverse":
            raise InputError("--kl reverse needs the teacher's probabilities, which sampled words do not tell: --cache top")
        drawn_NK = log_shares(student_NV, temperature).gather(1, self.words_NK)
        return temperature**2 * -(self.entropy_N + drawn_NK.mean(1)).mean()


def log_shares(logits_NV: Tensor, temperature: float) -> Tensor:
    """Return the logarithms of the words' probabilities (N, V) in float32 at least."""
    wide = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    return F.log_softmax(wide if temperature == 1 else wide / temperature, -1)


def _log_rest(log_NV: Tensor, words_NK: Tensor) -> Tensor:
    """Return the logarithm (N) of what all other words have together, -100 at least."""
    rest_NV = log_NV.scatter(1, words_NK, float("-inf"))
    return rest_NV.logsumexp(1).clamp_min(-100.0)
