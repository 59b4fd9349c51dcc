"""The sweep: block by block, each calibrated on what the already pruned blocks before it give out.

One block's statistics live at a time. Activations are kept per sample, so samples of different lengths need no padding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlmc.toolchain.families.base import Family, Tower, linears
from vlmc.toolchain.prune.statistics import Need, Statistics
from vlmc.toolchain.prune.tokens import Tokens

Feed = dict[str, Tensor]
PruneBlock = Callable[[str, nn.Module, dict[str, Statistics]], None]
"""(block's name, block, statistics by layer name inside the block): prunes the block in place."""


class _Captured(Exception):
    """Ends a forward pass once the input of the first block is known."""


@torch.no_grad()
def sweep_tower(
    model: nn.Module,
    family: Family,
    tower: Tower,
    feeds: Sequence[Feed],
    need: Need,
    prune: PruneBlock,
    tokens: Tokens | None = None,
) -> None:
    """Run the tower's blocks in order: gather statistics, call `prune`, then feed the pruned block's output onwards.

    `tokens` weighs the tokens of the tower's input; None weighs all alike.

    Raises:
        InputError: activations are NaN or infinite; the message gives the layer's full name.
    """
    blocks = family.blocks(model, tower)
    calls = [_capture(model, blocks[0][1], feed) for feed in feeds]
    for name, block in blocks:
        weights = [_weights(tokens, number, call, block) for number, call in enumerate(calls)]
        with _gathering(name, block, need) as gathered:
            for call, gathered.weights_L in zip(calls, weights, strict=True) if need is not Need.NOTHING else ():
                call.run(block)
        prune(name, block, gathered.statistics)
        for call in calls:
            call.hidden = call.run(block)


class _Call:
    """The arguments of one block's forward pass for one sample; `hidden` moves on from block to block."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args, self._kwargs = args, dict(kwargs)
        self.hidden: Tensor = self._kwargs.pop("hidden_states") if not args else args[0]

    def run(self, block: nn.Module) -> Tensor:
        output = block(self.hidden, *self._args[1:], **self._kwargs)
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        return hidden


def _capture(model: nn.Module, block: nn.Module, feed: Feed) -> _Call:
    calls: list[_Call] = []

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(_Call(args, kwargs))
        raise _Captured

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**feed, use_cache=False)
    except _Captured:
        return calls[0]
    finally:
        handle.remove()
    raise AssertionError("the model never reached its first block")


def _weights(tokens: Tokens | None, sample: int, call: _Call, block: nn.Module) -> Tensor | None:
    return None if tokens is None else tokens.weights(sample, call.hidden, lambda: call.run(block))


@dataclass
class _Gathered:
    """The statistics of a block's layers, and the weights of the tokens that run through it now."""

    statistics: dict[str, Statistics] = field(default_factory=dict)
    weights_L: Tensor | None = None


@contextmanager
def _gathering(prefix: str, block: nn.Module, need: Need) -> Iterator[_Gathered]:
    """Yield the statistics of every Linear in the block, filled while it runs; layers with one input share theirs."""
    gathered = _Gathered()
    found = gathered.statistics
    shared: dict[int, Statistics] = {}  # id of the input within one forward pass -> its statistics
    leaders: dict[str, bool] = {}

    def observe(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in found:
                leaders[name] = id(args[0]) not in shared
                found[name] = shared.setdefault(id(args[0]), Statistics(args[0].shape[-1], need, args[0].device))
                keep_alive.append(args[0])
            if leaders[name]:
                found[name].add(args[0], f"{prefix}.{name}", gathered.weights_L)

        return hook

    keep_alive: list[Tensor] = []  # an id names an input only while the input lives
    handles = [layer.register_forward_pre_hook(observe(name)) for name, layer in linears(block)]
    try:
        if need is Need.NOTHING:
            found.update((name, Statistics(layer.in_features, need, layer.weight.device)) for name, layer in linears(block))
        yield gathered
    finally:
        for handle in handles:
            handle.remove()
