"""Reading: prompts on their way into the running batch, a few at once or a long one piece by piece."""

from collections import deque
from collections.abc import Callable, Generator
from typing import final

from vlmc.runtime.batching.rows import Row
from vlmc.runtime.engine import Engine, State
from vlmc.runtime.processing.stacking import fit_together, stacked
from vlmc.runtime.sessions import Array

Read = tuple[Array, State]
"""The logits (B, V) after prompts, and their state."""


@final
class Reading:
    """Prompts that are read one after the other, `chunk` tokens at a time; each gets its turn, the long ones several."""

    def __init__(self, engine: Engine, chunk: int, joins: Callable[[list[Row], Array, State], None]) -> None:
        self._engine, self._chunk, self._joins = engine, chunk, joins
        self._turns: deque[tuple[list[Row], Generator[None, None, Read]]] = deque()

    def add(self, rows: list[Row]) -> None:
        """Take new questions, in their order; short ones that follow each other are read together."""
        group: list[Row] = []
        longest = 0
        for row in rows:
            longest = max(longest, row.asked.length)
            if group and not ((len(group) + 1) * longest <= self._chunk and _fits(row, group)):
                self._begin(group)
                group, longest = [], row.asked.length
            group.append(row)
        if group:
            self._begin(group)

    @property
    def waits(self) -> bool:
        """Whether there are prompts to be read."""
        return bool(self._turns)

    def turn(self) -> None:
        """Read at most `chunk` tokens of the prompts whose turn it is; those that are read join the running batch."""
        rows, steps = self._turns.popleft()
        if all(row.pending.done for row in rows):
            steps.close()
            return
        try:
            next(steps)
        except StopIteration as end:
            self._joins(rows, *end.value)
        except Exception as error:
            self._failed(rows, error)
        else:
            self._turns.append((rows, steps))

    def _begin(self, rows: list[Row]) -> None:
        self._turns.append((rows, self._steps(rows)))

    def _steps(self, rows: list[Row]) -> Generator[None, None, Read]:
        batch = stacked([row.asked.batch for row in rows])
        if len(rows) > 1 or rows[0].asked.length <= self._chunk or self._engine.reads_whole(batch):
            return self._engine.prefill(batch)
        return (yield from self._engine.prefill_in_chunks(batch, self._chunk))

    def _failed(self, rows: list[Row], error: Exception) -> None:
        """Where several were read together, read each alone: most often one of them is to blame."""
        if len(rows) == 1:
            for row in rows:
                row.fail(error)
        else:
            for row in rows:
                self._begin([row])


def _fits(row: Row, group: list[Row]) -> bool:
    """Whether a question fits together with others: with the first of them, and with the first that has an image."""
    batches = [one.asked.batch for one in group]
    return fit_together([batches[0], *[batch for batch in batches if batch.vision][:1], row.asked.batch])
