"""Running: the batch of questions that are being answered, all of them a token at a time."""

from time import perf_counter
from typing import final

import numpy as np

from vlmc.runtime.batching.rows import Row
from vlmc.runtime.batching.states import Slots
from vlmc.runtime.engine import Engine, State
from vlmc.runtime.sessions import Array


@final
class Running:
    """The questions that are being answered, each in its slot of the model's state after their tokens so far."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: dict[int, Row] = {}
        self._slots: Slots | None = None

    def join(self, rows: list[Row], logits_BV: Array, state: State) -> None:
        """Choose the first token of questions whose prompts were read; those that go on join the batch."""
        self._leave()
        for row, logits_V, likeliest in zip(rows, logits_BV, _likeliest(logits_BV), strict=True):
            row.take(logits_V, likeliest)
        self._settle(rows, state)

    def take_over(self, row: Row, state: State) -> None:
        """Go on with a question that another thread has begun to answer."""
        self._leave()
        self._settle([row], state)

    def tell(self, now: float | None = None) -> None:
        """Wake those who wait for the text of the last tokens; given the time, not those who were woken just before."""
        for row in self._rows.values():
            row.pending.tell(now)

    def step(self) -> None:
        """Make one more token for each question, telling the text of the last ones meanwhile; who is answered leaves."""
        self._leave()
        if self._slots is None:
            return
        self._slots.rest()
        tokens_B = np.zeros(self._slots.count, np.int64)
        for slot, row in self._rows.items():
            tokens_B[slot] = row.reply.token
        try:
            logits_BV, self._slots.state = self._engine.step(tokens_B, self._slots.state, lambda: self.tell(perf_counter()))
        except Exception as error:
            for row in self._rows.values():
                row.fail(error)
        else:
            likeliest_B = _likeliest(logits_BV)
            for slot, row in self._rows.items():
                row.take(logits_BV[slot], likeliest_B[slot])

    def _settle(self, rows: list[Row], state: State) -> None:
        """Give those that go on their slots."""
        stay = [index for index, row in enumerate(rows) if not row.pending.done]
        if stay:
            self._slots = self._slots or Slots(state)
            for slot, index in zip(self._slots.fill(state, stay), stay, strict=True):
                self._rows[slot] = rows[index]

    def _leave(self) -> None:
        """Free the slots of those that have ended; where many are free, the rest moves together."""
        if self._slots is None:
            return
        ended = [slot for slot, row in self._rows.items() if row.pending.done]
        if not ended:
            return
        self._slots.free(ended)
        for slot in ended:
            del self._rows[slot]
        if not self._rows:
            self._slots = None
        elif (kept := self._slots.compact()) is not None:
            self._rows = {index: self._rows[slot] for index, slot in enumerate(kept)}


def _likeliest(logits_BV: Array) -> list[int]:
    """Return each row's token of the greatest logit: one search over all rows, instead of one for each."""
    found: list[int] = logits_BV.argmax(1).tolist()
    return found
