"""What a teacher predicts for the answers' tokens, whole or in part, and a student's divergence from it.

Shapes: N answer tokens, V tokens of the vocabulary, K of them that are kept, D hidden size.
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

        T divides the logits of both; T^2 keeps the size of the gradient (arXiv 1503.02531).
        """

    @property
    def hidden_ND(self) -> Sequence[Tensor]:
        """The teacher's hidden states (N, D), block by block; empty where the loss does not use them."""
        return ()


@dataclass(frozen=True)
class FullTarget(Target):
    """All of the teacher's logits (N, V), and hidden states where the loss uses them."""

    logits_NV: Tensor
    states_ND: Sequence[Tensor] = ()

    @property
    def hidden_ND(self) -> Sequence[Tensor]:
        return self.states_ND

    def divergence(self, student_NV: Tensor, direction: Direction, temperature: float) -> Tensor:
        student, teacher = log_probabilities(student_NV, temperature), log_probabilities(self.logits_NV, temperature)
        true, guess = (teacher, student) if direction == "forward" else (student, teacher)
        return temperature**2 * F.kl_div(guess, true, log_target=True, reduction="batchmean")


@dataclass(frozen=True)
class TopTokens(Target):
    """The teacher's likeliest tokens, their log probabilities (N, K), and the log of the other tokens' probability (N).

    The others count as one token, so a divergence is at most the true one (data processing inequality).
    """

    tokens_NK: Tensor
    log_NK: Tensor
    rest_N: Tensor

    @classmethod
    def of(cls, logits_NV: Tensor, temperature: float, count: int) -> "TopTokens":
        """Keep the `count` likeliest tokens; at most all but one."""
        log_NV = log_probabilities(logits_NV, temperature)
        log_NK, tokens_NK = log_NV.topk(min(count, log_NV.shape[1] - 1))
        return cls(tokens_NK, log_NK, _log_rest(log_NV, tokens_NK))

    def divergence(self, student_NV: Tensor, direction: Direction, temperature: float) -> Tensor:
        log_NV = log_probabilities(student_NV, temperature)
        student = torch.cat([log_NV.gather(1, self.tokens_NK), _log_rest(log_NV, self.tokens_NK)[:, None]], 1)
        teacher = torch.cat([self.log_NK, self.rest_N[:, None]], 1)
        true, guess = (teacher, student) if direction == "forward" else (student, teacher)
        return temperature**2 * F.kl_div(guess, true, log_target=True, reduction="batchmean")


@dataclass(frozen=True)
class SampledTokens(Target):
    """Tokens (N, K) drawn with the teacher's probabilities, and its entropy (N): unbiased (as in arXiv 2503.16870)."""

    tokens_NK: Tensor
    entropy_N: Tensor

    @classmethod
    def of(cls, logits_NV: Tensor, temperature: float, count: int, generator: torch.Generator) -> "SampledTokens":
        """Draw `count` tokens for each answer token, with replacement."""
        log_NV = log_probabilities(logits_NV, temperature)
        tokens_NK = torch.multinomial(log_NV.exp(), count, replacement=True, generator=generator)
        return cls(tokens_NK, -(log_NV.exp() * log_NV.clamp_min(-1e4)).sum(1))

    def divergence(self, student_NV: Tensor, direction: Direction, temperature: float) -> Tensor:
        if direction == "reverse":
            raise InputError("--kl reverse needs the teacher's probabilities, not sampled tokens: choose --cache top")
        drawn_NK = log_probabilities(student_NV, temperature).gather(1, self.tokens_NK)
        return temperature**2 * -(self.entropy_N + drawn_NK.mean(1)).mean()


def log_probabilities(logits_NV: Tensor, temperature: float) -> Tensor:
    """Return the log probabilities of all tokens (N, V), in float32 at least."""
    wide = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    return F.log_softmax(wide if temperature == 1 else wide / temperature, -1)


def _log_rest(log_NV: Tensor, tokens_NK: Tensor) -> Tensor:
    """Return the log (N) of the probability that all other tokens have together, -100 at least."""
    rest_NV = log_NV.scatter(1, tokens_NK, float("-inf"))
    return rest_NV.logsumexp(1).clamp_min(-100.0)
