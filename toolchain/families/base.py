"""What vlmc must know of a model family: which layers may be pruned, where they sit, how to ask and how to deploy."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import Tensor, nn

from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.artifact import Part, Serving
from vlmc.runtime.errors import InputError

Processor = Any  # transformers' processors share no typed base
SLOT = "<image>"


@dataclass(frozen=True)
class Tower:
    """A stack of transformer blocks that run one after the other.

    `path` is a glob for the name of its ModuleList: transformers renames what lies above it from release to release.
    """

    part: Part
    path: str


class Family(ABC):
    """One kind of vision-language model, such as LLaVA; stateless. A new family is one file with one of these."""

    model_type: ClassVar[str]  # transformers' config.model_type
    towers: ClassVar[tuple[Tower, ...]]  # in the order in which they run; every Linear inside may be pruned
    interface: ClassVar[tuple[str, ...]]  # globs of the Linear layers between the towers: never pruned, adapted by LoRA

    @abstractmethod
    def serving(self, model: nn.Module, processor: Processor) -> Serving:
        """Return what the runtime must know to feed this model."""

    @abstractmethod
    def graphs(self, model: nn.Module, serving: Serving) -> list[GraphSpec]:
        """Return the graphs to export: vision_encoder, embed_tokens and decoder_model_merged."""

    @abstractmethod
    def visual_tokens(self, model: nn.Module, input_ids_BT: Tensor) -> Tensor:
        """Return which tokens of the language model's input are visual: boolean (B, T)."""

    def blocks(self, model: nn.Module, tower: Tower) -> list[tuple[str, nn.Module]]:
        """Return the tower's blocks with their full names, in order."""
        stacks = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and fnmatchcase(n, tower.path)]
        if len(stacks) != 1:
            raise InputError(f"this {self.model_type} model has {len(stacks)} stacks called {tower.path}, expected one")
        path, stack = stacks[0]
        return [(f"{path}.{name}", block) for name, block in stack.named_children()]

    def prunable(self, model: nn.Module) -> dict[str, Part]:
        """Map the name of every layer that may be pruned to its part, in order of execution."""
        return {
            f"{prefix}.{name}": tower.part
            for tower in self.towers
            for prefix, block in self.blocks(model, tower)
            for name, _ in linears(block)
        }

    def adaptable(self, model: nn.Module) -> list[str]:
        """Return the names of the interface's Linear layers."""
        return [name for name, _ in linears(model) if matches(name, self.interface)]


def linears(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the name and the layer of every Linear inside."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            yield name, child


def matches(name: str, globs: Sequence[str]) -> bool:
    """Whether the name matches one of the globs."""
    return any(fnmatchcase(name, glob) for glob in globs)
