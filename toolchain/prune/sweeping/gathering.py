"""Statistics of the inputs of a block's layers, gathered while the block runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vlmc.toolchain.families.base import linears
from vlmc.toolchain.prune.statistics import Need, Statistics


@dataclass
class Gathered:
    """The statistics of a block's layers by their names inside it, and the weights (T) of the tokens that run now."""

    statistics: dict[str, Statistics] = field(default_factory=dict)
    weights_T: Tensor | None = None


@contextmanager
def gathering(prefix: str, block: nn.Module, need: Need) -> Iterator[Gathered]:
    """Yield the statistics of every Linear that runs in the block; layers that read the same tensor share theirs.

    `prefix` is the block's full name, for errors.
    """
    gathered = Gathered()
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

        return hook

    handles = [layer.register_forward_pre_hook(observe(name)) for name, layer in linears(block)]
    try:
        yield gathered
    finally:
        for handle in handles:
            handle.remove()
