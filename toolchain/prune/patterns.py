"""Which layer is pruned to what: the parts' patterns, and exceptions for single layers by glob."""

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern

DENSE = "none"


def parse(text: str) -> SparsityPattern | None:
    """Read a sparsity; None for `none`.

    Raises:
        InputError: it is not a sparsity.
    """
    return None if text == DENSE else SparsityPattern.parse(text)


def by_layer(
    parts: Mapping[str, Part], by_part: Mapping[Part, SparsityPattern], exceptions: Mapping[str, str]
) -> dict[str, SparsityPattern]:
    """Return the pattern of every layer that is to be pruned, in the order of `parts`.

    The first glob of `exceptions` that matches a layer's name decides, the layer's part where none does.

    Raises:
        InputError: a glob matches no layer, or nothing is left to prune.
    """
    patterns = {glob: parse(text) for glob, text in exceptions.items()}
    for glob in patterns:
        if not any(fnmatchcase(name, glob) for name in parts):
            raise InputError(f"--layers {glob}: no layer that may be pruned matches, such as {next(iter(parts))}")

    def choose(name: str, part: Part) -> SparsityPattern | None:
        matching = [glob for glob in patterns if fnmatchcase(name, glob)]
        return patterns[matching[0]] if matching else by_part.get(part)

    chosen = {name: choose(name, part) for name, part in parts.items()}
    found = {name: pattern for name, pattern in chosen.items() if pattern is not None}
    if not found:
        raise InputError("nothing to prune: every layer is left dense")
    return found


def widths(model: nn.Module, layers: Iterable[str]) -> dict[str, int]:
    """Return the input size of each of these Linear layers."""
    return {name: model.get_parameter(f"{name}.weight").shape[1] for name in layers}


def refuse_nothing(patterns: Mapping[str, SparsityPattern], inputs: Mapping[str, int]) -> None:
    """Refuse patterns by which no layer would lose a weight; `inputs` are the layers' input sizes.

    Raises:
        InputError: they ask for less than one weight of any row.
    """
    if patterns and not any(pattern.zeros(inputs[name]) for name, pattern in patterns.items()):
        widest = max(patterns, key=lambda name: inputs[name])
        raise InputError(
            f"{patterns[widest]} prunes nothing: it is less than one weight of a row, and the widest layer has rows of "
            f"{inputs[widest]}; give at least {math.ceil(10000 / inputs[widest]) / 100:g}%"
        )


def indivisible(patterns: Mapping[str, SparsityPattern], inputs: Mapping[str, int]) -> dict[str, int]:
    """Return the input sizes, by name, of the layers whose rows are not whole groups of their pattern."""
    return {name: inputs[name] for name, pattern in patterns.items() if not pattern.divides(inputs[name])}


def left_dense(patterns: Mapping[str, SparsityPattern], inputs: Mapping[str, int], *, allowed: bool) -> dict[str, int]:
    """Return the input sizes, by name, of the layers that stay dense because their rows are not whole groups.

    Raises:
        InputError: there are such layers and they may not stay dense, or there are no others.
    """
    odd = indivisible(patterns, inputs)
    if odd and not allowed:
        listed = ", ".join(f"{name} ({width})" for name, width in list(odd.items())[:5])
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise InputError(
            f"the inputs of {len(odd)} layers are not a multiple of the pattern's group: {listed}{more}; "
            "add --allow-dense to leave them dense"
        )
    if odd and len(odd) == len(patterns):
        raise InputError("nothing to prune: no layer's inputs are a multiple of the pattern's group")
    return odd
