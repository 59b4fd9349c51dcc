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
        for row in rows:
            if group and not self._fits([*group, row]):
                self._begin(group)
                group = []
            group.append(row)
        if group:
            self._begin(group)

    def turn(self) -> None:
        """Read at most `chunk` tokens of the prompts whose turn it is; those that are read join the running batch."""
        if not self._turns:
            return
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

    def _fits(self, rows: list[Row]) -> bool:
        batches = [row.asked.batch for row in rows]
        return len(rows) * max(row.asked.length for row in rows) <= self._chunk and fit_together(batches)

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
