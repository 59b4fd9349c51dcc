"""What a batcher does, and what it did: for metrics."""

from dataclasses import dataclass
from typing import final

from vlmc.runtime.answers import Answer
from vlmc.runtime.batching.rows import Row
from vlmc.runtime.errors import Cancelled


@final
@dataclass(frozen=True)
class BatcherState:
    """How many questions are `queued` and `running` now, and how each one ended since the batcher was made.

    `refused` were turned away as `Busy`; `failed` ended with an error. `prompt_tokens` and `tokens` are those of the
    questions that were answered.
    """

    queued: int
    running: int
    answered: int
    cancelled: int
    failed: int
    refused: int
    prompt_tokens: int
    tokens: int


@final
class Counts:
    """Counts how questions end."""

    def __init__(self) -> None:
        self.refused = 0
        self._answered = self._cancelled = self._failed = self._prompt_tokens = self._tokens = 0

    def ended(self, row: Row) -> None:
        """Count a question that has ended."""
        end = row.pending.ended
        if isinstance(end, Answer):
            self._answered += 1
            self._prompt_tokens += end.prompt_tokens
            self._tokens += len(end.tokens)
        elif isinstance(end, Cancelled):
            self._cancelled += 1
        else:
            self._failed += 1

    def state(self, queued: int, running: int) -> BatcherState:
        """Return them all."""
        return BatcherState(
            queued,
            running,
            self._answered,
            self._cancelled,
            self._failed,
            self.refused,
            self._prompt_tokens,
            self._tokens,
        )
