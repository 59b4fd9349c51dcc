"""Session: a graph that is ready to run, with any backend."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PRESENT = "present."
"""What the names of a decoder's outputs begin with that are fed to it again: its cache."""


class Bound:
    """A graph with arrays that its outputs may be written into, run after run; one thread at a time may run it."""

    def __init__(self, session: "Session") -> None:
        self._session = session

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Do as `Session.run`; the arrays may be feeds too, and are what is returned for outputs written into them."""
        return self._session.run(feeds)


class Session(ABC):
    """A loaded graph; a context manager that frees it at the end. `run` may be called from several threads."""

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        """Name -> type and shape of every input; a dynamic dimension is given by its name."""

    @abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name; feeds are converted to the types of the inputs."""

    def bound(self, places: Mapping[str, Array]) -> Bound:
        """Return the graph bound to an array for some of its outputs, by name. By itself, a session makes no use of them."""
        return Bound(self)

    @abstractmethod
    def close(self) -> None:
        """Free the graph; it cannot run any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
