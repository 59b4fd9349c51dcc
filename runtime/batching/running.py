"""Running: the batch of questions that are being answered, all of them a token at a time."""

from typing import final

import numpy as np

from vlmc.runtime.batching.rows import Row
from vlmc.runtime.batching.states import joined, kept
from vlmc.runtime.engine import Engine, State
from vlmc.runtime.sessions import Array


@final
class Running:
    """The questions that are being answered, and the model's state after their tokens so far."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rows: list[Row] = []
        self._state: State | None = None

    def join(self, rows: list[Row], logits_BV: Array, state: State) -> None:
        """Add questions whose prompts were read, with their first token."""
        self._leave()
        for row, logits_V in zip(rows, logits_BV, strict=True):
            row.take(logits_V)
        self._state = joined([state] if self._state is None else [self._state, state])
        self.rows += rows
        self._leave()

    def step(self) -> None:
        """Make one more token for each question; those that are answered or given up leave."""
        self._leave()
        if self._state is None:
            return
        tokens_B = np.array([row.reply.token for row in self.rows])
        try:
            logits_BV, self._state = self._engine.step(tokens_B, self._state)
        except Exception as error:
            for row in self.rows:
                row.fail(error)
        else:
            for row, logits_V in zip(self.rows, logits_BV, strict=True):
                row.take(logits_V)
        self._leave()

    def _leave(self) -> None:
        stay = [index for index, row in enumerate(self.rows) if not row.pending.done]
        if len(stay) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in stay]
        self._state = kept(self._state, stay) if stay and self._state is not None else None
