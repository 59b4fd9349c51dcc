"""Gathering the statistics of the inputs of a block's layers while the block runs."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.families.base import linears


class _Seen(Exception):
    """Ends a pass once every layer's input has been seen: what follows changes no statistic."""


@dataclass
class Gathered:
    """The statistics of a block's layers by their names inside it."""

    statistics: dict[str, Statistics] = field(default_factory=dict)
    weights_T: Tensor | None = None  # of the tokens that run now
    layers: int = 0  # Linear layers in the block
    _first: bool = True
    _ran: Counter[str] = field(default_factory=Counter)  # the layers that this pass has reached, and how often
    _enough: int | None = None  # layers after which a pass may end; None where one did not run exactly once in the first

    def run(self, once: Callable[[], object], weights_T: Tensor | None) -> None:
        """Take one sample through the block: the first to the block's end, the others no further than needed."""
        self.weights_T, self._ran = weights_T, Counter()
        with suppress(_Seen):
            once()
        if self._first:
            self._first = False
            self._enough = self.layers if len(self._ran) == self._ran.total() == self.layers else None

    def reached(self, name: str) -> None:
        """Note that a layer's input has been added.

        Raises:
            _Seen: it was the last one.
        """
        self._ran[name] += 1
        if len(self._ran) == self._enough:
            raise _Seen


@contextmanager
def gathering(prefix: str, block: nn.Module, need: Need) -> Iterator[Gathered]:
    """Yield the statistics of every Linear that runs in the block; layers that read the same tensor share theirs.

    `prefix` is the block's full name, for errors.
    """
    layers = dict(linears(block))
    gathered = Gathered(layers=len(layers))
    found = gathered.statistics
    shared: dict[int, Statistics] = {}  # id of the input within the first pass -> its statistics
    leads: dict[str, bool] = {}
    kept: list[Tensor] = []  # an id names an input only while the input lives

    def observe(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in found:
                leads[name] = id(args[0]) not in shared
                found[name] = shared.setdefault(id(args[0]), Statistics(args[0].shape[-1], need, args[0].device))
                kept.append(args[0])
            if leads[name]:
                found[name].add(args[0], f"{prefix}.{name}", gathered.weights_T)
            gathered.reached(name)

        return hook

    handles = [layer.register_forward_pre_hook(observe(name)) for name, layer in layers.items()]
    try:
        yield gathered
    finally:
        for handle in handles:
            handle.remove()
