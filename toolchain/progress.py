"""Progress on stderr: a bar with the time left on a terminal, and notices; nothing with --quiet."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Draws progress bars on stderr, or nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def notice(self, text: str | None) -> None:
        """Show a line that the user should read; None is no line."""
        if text is not None and not self.quiet:
            print(text, file=sys.stderr)

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> "Iterator[Task]":
        """Yield a task of `total` units, of which `done` are done already."""
        if self.quiet:
            yield Task()
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, console=Console(stderr=True)) as bars:
            handle = bars.add_task(title, total=total, completed=done, note="")
            yield _BarTask(bars, handle)


class Task:
    """A piece of work that is not shown."""

    def advance(self, note: str | None = None) -> None:
        """Say that one more unit is done, with a note such as the loss."""


class _BarTask(Task):
    def __init__(self, bars: "object", handle: "object") -> None:
        self._bars, self._handle = bars, handle

    def advance(self, note: str | None = None) -> None:
        fields = {} if note is None else {"note": note}
        self._bars.update(self._handle, advance=1, **fields)  # type: ignore[attr-defined]
