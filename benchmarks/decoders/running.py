"""What everyone who runs a whole decoder can do."""

from abc import ABC, abstractmethod
from typing import Any


class Runner(ABC):
    """A decoder that is ready to run; `nbytes` of products' weights, `logits` of the last run where they are kept."""

    nbytes: int
    logits: Any = None

    @abstractmethod
    def prefill(self, tokens: int) -> None:
        """Run a prompt."""

    @abstractmethod
    def step(self) -> None:
        """Run one token more."""
