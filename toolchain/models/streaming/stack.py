"""A tower's blocks, run one at a time by the module that owns them.

What the model does between blocks (masks of their own for some blocks, a position bias that the first block makes, visual
features added on the way) is the model's own code. So to run block k, the owner is called with the arguments of one sample,
the blocks before k return what block k - 1 gave out earlier, and the pass ends with block k.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vlmc.toolchain.models.own_code import own_code
from vlmc.toolchain.models.streaming.activations import Tree


@dataclass(frozen=True)
class Passed:
    """One sample's pass through one block: the hidden states that went in, and all that came out."""

    before: Tensor
    output: Tree

    @property
    def after(self) -> Tensor:
        """The hidden states that came out."""
        hidden: Tensor = self.output[0] if isinstance(self.output, tuple) else self.output
        return hidden


class _Reached(Exception):
    """Ends a forward pass once it has come as far as needed."""

    def __init__(self, found: Any) -> None:
        self.found = found


class Stack:
    """The blocks of one tower, given with their full names in the model."""

    def __init__(self, model: nn.Module, blocks: Sequence[tuple[str, nn.Module]]) -> None:
        self.blocks = [block for _, block in blocks]
        self.owner = model.get_submodule(blocks[0][0].rsplit(".", 2)[0])

    def record(self, run: Callable[[], object]) -> Tree:
        """Return the arguments (positional, by name) that the owner is called with while `run` runs the model."""

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _Reached((args, kwargs))

        handle = self.owner.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            return _reached(run)
        finally:
            handle.remove()

    @contextmanager
    def at(self, number: int) -> Iterator[Callable[[Tree, Tree], Passed]]:
        """Yield what runs the block of that number: (recorded arguments, output of the block before) -> what passed."""
        with self._from(number) as stand_in:
            block = self.blocks[number]
            handles = [
                block.register_forward_pre_hook(stand_in.enter, with_kwargs=True),
                block.register_forward_hook(stand_in.leave),
            ]
            try:
                yield partial(stand_in.run, self.owner)
            finally:
                for handle in handles:
                    handle.remove()

    @contextmanager
    def from_last(self) -> Iterator["StandIn"]:
        """Inside, the tower runs its last block only; `give` must be told what the block before it gave out."""
        with self._from(len(self.blocks) - 1) as stand_in:
            yield stand_in

    @contextmanager
    def _from(self, number: int) -> Iterator["StandIn"]:
        """Replace all blocks before that one."""
        stand_in, earlier = StandIn(number), self.blocks[:number]
        forwards = [vars(block).get("forward") for block in earlier]
        for place, block in enumerate(earlier):
            block.forward = partial(stand_in.answer, place)
        try:
            yield stand_in
        finally:
            for block, forward in zip(earlier, forwards, strict=True):
                del block.forward
                if forward is not None:  # one that accelerate's hooks have put there
                    block.forward = forward


class StandIn:
    """Stands in for the blocks before the one of that number; `runs` counts the passes through the tower since `give`."""

    def __init__(self, number: int) -> None:
        self.number, self.runs = number, 0
        self._given: Tree = None  # what the last block before this one returns
        self._scratch: Tree = None  # what the others return: nothing depends on it
        self._before: Tensor | None = None

    def run(self, owner: nn.Module, arguments: Tree, previous: Tree) -> Passed:
        """Call the owner with one sample's arguments, until the block has run."""
        args, kwargs = arguments
        self.give(previous)
        output = _reached(lambda: owner(*args, **kwargs))
        assert self._before is not None
        return Passed(self._before, output)

    def give(self, previous: Tree) -> None:
        """Take what the block before gave out for the sample that runs next."""
        self.runs, self._given, self._scratch = 0, _copy(previous), _copy(previous)

    def answer(self, place: int, *args: Any, **kwargs: Any) -> Tree:
        """Run in place of an earlier block."""
        self.runs += place == 0
        return self._given if place == self.number - 1 else self._scratch

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._before = args[0] if args else kwargs["hidden_states"]

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Tree) -> None:
        raise _Reached(output)


def _copy(tree: Tree) -> Tree:
    """Copy what a block gave out: the block's owner may write into it."""
    return pytree.tree_map_only(Tensor, Tensor.clone, tree)


def _reached(run: Callable[[], object]) -> Any:
    """Run the model as far as needed.

    Raises:
        InputError: the model's own code cannot be run on what the processor made.
    """
    try:
        with own_code():
            run()
    except _Reached as end:
        return end.found
    raise AssertionError("the model never reached the tower's blocks")
