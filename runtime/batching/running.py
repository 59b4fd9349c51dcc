"""Running: the batch of questions that are being answered, all of them a token at a time."""

from collections.abc import Mapping
from time import perf_counter
from typing import final

import numpy as np

from vlmc.runtime.batching.pending import Pending
from vlmc.runtime.batching.rows import Row
from vlmc.runtime.batching.states import Slots
from vlmc.runtime.engine import Engine, State
from vlmc.runtime.sessions import Array

_PAUSE = 0.005  # seconds that a text may wait until who reads it hears of it: sooner is more than anybody sees


@final
class Running:
    """The questions that are being answered, each in its slot of the model's state after their tokens so far.

    Who waits for a text is woken while the next token is made, and several at once where tokens take less than `_PAUSE`:
    those who are woken want Python for themselves, and the next token waits for it as well.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: dict[int, Row] = {}
        self._slots: Slots | None = None
        self._untold: list[Pending] = []
        self._since = 0.0  # when the first of them got its text
        self._took = _PAUSE  # seconds of the last step

    @property
    def goes_on(self) -> bool:
        """Whether a question waits for its next token."""
        return any(not row.pending.done for row in self._rows.values())

    def join(self, rows: list[Row], logits_BV: Array, state: State) -> None:
        """Choose the first token of questions whose prompts were read; those that go on join the batch."""
        self._leave()
        self._take(dict(enumerate(rows)), logits_BV)
        self._settle(rows, state)

    def take_over(self, row: Row, state: State) -> None:
        """Go on with a question that another thread has begun to answer."""
        self._leave()
        self._settle([row], state)

    def tell(self) -> None:
        """Wake those who wait for the texts of the last tokens."""
        untold, self._untold = self._untold, []
        for pending in untold:
            pending.tell()

    def step(self) -> None:
        """Make one more token for each question, telling the texts of the last ones meanwhile; who is answered leaves."""
        self._leave()
        if self._slots is None:
            return
        self._slots.rest()
        tokens_B = np.zeros(self._slots.count, np.int64)
        for slot, row in self._rows.items():
            tokens_B[slot] = row.reply.token
        began = perf_counter()
        try:
            logits_BV, self._slots.state = self._engine.step(tokens_B, self._slots.state, self._tell_in_time)
        except Exception as error:
            for row in self._rows.values():
                row.fail(error)
        else:
            self._took = perf_counter() - began
            self._take(self._rows, logits_BV)

    def _settle(self, rows: list[Row], state: State) -> None:
        """Give those that go on their slots."""
        stay = [index for index, row in enumerate(rows) if not row.pending.done]
        if stay:
            self._slots = self._slots or Slots(state)
            for slot, index in zip(self._slots.fill(state, stay), stay, strict=True):
                self._rows[slot] = rows[index]

    def _take(self, rows: Mapping[int, Row], logits_BV: Array) -> None:
        """Choose the next token of each question, from its row of the logits: one search for the greatest over all rows."""
        likeliest_B = logits_BV.argmax(1).tolist()
        for place, row in rows.items():
            row.take(logits_BV[place], likeliest_B[place])
        self._since = self._since if self._untold else perf_counter()
        self._untold = list(dict.fromkeys([*self._untold, *(row.pending for row in rows.values())]))

    def _tell_in_time(self) -> None:
        """Tell the texts now if they would else wait for too long."""
        if perf_counter() - self._since + self._took >= _PAUSE:
            self.tell()

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
