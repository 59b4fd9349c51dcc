"""Alone: a question that is answered in the thread of who asked it, as long as there is no other one."""

from collections.abc import Callable, Generator
from typing import final

import numpy as np

from vlmc.runtime.answers import Answer
from vlmc.runtime.batching.rows import Row, told
from vlmc.runtime.engine import Engine, State


@final
class Alone:
    """A question beside which there was no other one: no thread has to wake another for its tokens.

    Before each token after the first it asks whether it still `may` run here; if not, `hand` gives it to the batch. Where
    it ends here, `ended` is called.
    """

    def __init__(
        self,
        engine: Engine,
        row: Row,
        may: Callable[[], bool],
        hand: Callable[[Row, State], None],
        ended: Callable[[Row], None],
    ) -> None:
        self._engine, self._row = engine, row
        self._may, self._hand, self._ended = may, hand, ended

    def stream(self) -> Generator[str, None, Answer]:
        """Run the prompt now, and yield the pieces of the answer while its tokens are made; return it whole.

        Raises:
            VlmcError: as the `Pending` of a batcher, also before the first piece.
        """
        pieces = self._pieces()
        next(pieces)  # from here on it ends in its `finally`, also where nobody asks for a piece
        return pieces

    def _pieces(self) -> Generator[str, None, Answer]:
        row, pending, handed = self._row, self._row.pending, False
        try:
            logits_1V, state = self._engine.prefill(row.asked.batch)
            yield ""
            count = 0
            while True:
                row.take(logits_1V[0], int(logits_1V[0].argmax()))
                new = pending.after(count)
                yield from new
                count += len(new)
                if pending.done:
                    break
                if not self._may():
                    handed = True
                    self._hand(row, state)
                    yield from pending.rest(count)
                    break
                logits_1V, state = self._engine.step(np.array([row.reply.token]), state)
            return pending.answer()
        except Exception as error:  # ONNX Runtime's share no base; who asked gets one line, as in a batch
            row.fail(error)
            raise told(error) from None
        finally:
            if not pending.done:  # it was given up
                pending.cancel()
            if not handed:
                self._ended(row)
