"""TensorBoard, with --tensorboard: the curves of a run while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlmc.runtime.errors import EnvironmentLacks


class Board:
    """Takes the curves of a run; this one keeps nothing."""

    def put(self, step: int, values: dict[str, float]) -> None:
        """Add one point to each curve."""


class _TensorBoard(Board):
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def put(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"repair/{name}", value, step)


@contextmanager
def board(folder: str | None, done: int = 0) -> Iterator[Board]:
    """Yield a board that writes to a folder, where steps beyond `done` are dropped; without a folder one that keeps nothing.

    Raises:
        EnvironmentLacks: TensorBoard is not installed.
    """
    if folder is None:
        yield Board()
        return
    with writer_class()(folder, purge_step=done + 1) as writer:
        yield _TensorBoard(writer)


def writer_class() -> Any:
    """Return the class that writes TensorBoard's files.

    Raises:
        EnvironmentLacks: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise EnvironmentLacks("--tensorboard needs a package that is not installed: pip install tensorboard") from None
    return SummaryWriter
