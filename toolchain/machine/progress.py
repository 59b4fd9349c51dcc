"""Progress on stderr: a bar with the time left on a terminal, and notices; nothing with --quiet."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TaskID, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.progress import Task as Shown
from rich.table import Table
from rich.text import Text

from vlmc.runtime.errors import shortened

SHORTEST, LONGEST = 8, 40  # characters of a bar


class Progress:
    """Draws progress bars on stderr, or on another console; nothing when quiet."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.quiet, self.console = quiet, console

    def notice(self, text: str | None) -> None:
        """Show a line that the user should read; None shows nothing."""
        if text is not None and not self.quiet:
            print(shortened(text, 2000), file=sys.stderr)

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> "Iterator[Task]":
        """Yield a task of `total` units, of which `done` are already done."""
        if self.quiet:
            yield Task()
            return
        with Bars(_Line(), console=self.console or Console(stderr=True)) as bars:
            yield _BarTask(bars, bars.add_task(title, total=total, completed=done, notes=[]))


class Task:
    """A piece of work that is not shown."""

    def advance(self, note: str | Sequence[str] = ()) -> None:
        """Count one more unit as done, with a note such as the loss, or several, the most important one first."""

    def say(self, note: str) -> None:
        """Show what is being done, in place of the notes of the last unit."""

    def extend(self, count: int) -> None:
        """Say that there are so many more units to do."""


class _BarTask(Task):
    def __init__(self, bars: Bars, handle: TaskID) -> None:
        self._bars, self._handle = bars, handle

    def advance(self, note: str | Sequence[str] = ()) -> None:
        notes = [note] if isinstance(note, str) else list(note)
        self._bars.update(self._handle, advance=1, **({"notes": notes} if note else {}))

    def say(self, note: str) -> None:
        self._bars.update(self._handle, notes=[note])

    def extend(self, count: int) -> None:
        [task] = [task for task in self._bars.tasks if task.id == self._handle]
        self._bars.update(self._handle, total=(task.total or 0) + count)


class _Line(ProgressColumn):  # type: ignore[misc]
    """The only column, a whole line: separate columns would all be cut off alike."""

    def render(self, task: Shown) -> "_Fitted":
        return _Fitted(task)


class _Fitted:
    """A task on one line. Title, count and time left are always shown; the rest is dropped where it does not fit.

    The bar gets shorter first. Then the last note goes, and so on to the second; then the elapsed time, the first note and
    last the bar.
    """

    def __init__(self, task: Shown) -> None:
        self.task = task

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        task = self.task
        title, count = Text(task.description), MofNCompleteColumn().render(task)
        left = Text("eta ") + TimeRemainingColumn().render(task)
        gone, notes = TimeElapsedColumn().render(task), [Text(note, "cyan") for note in task.fields["notes"]]
        room = options.max_width - sum(cell.cell_len + 1 for cell in (title, count, left)) + 1
        bar, shown = room > SHORTEST, set[int]()
        room -= (SHORTEST + 1) * bar
        for cell in (*notes[:1], gone, *notes[1:]):
            if cell.cell_len >= room:
                break
            shown.add(id(cell))
            room -= cell.cell_len + 1
        drawn = [BarColumn(min(LONGEST, SHORTEST + room)).render(task)] if bar else []
        table = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
        table.add_row(title, *drawn, count, *(cell for cell in (gone, left, *notes) if cell is left or id(cell) in shown))
        yield table
