"""Sharing out a percentage over groups of layers, such as blocks, by how much each can lose.

A method (`owl`, `ecoflap`) turns one score of each group into the group's fraction of zeros; the mean of the fractions, each
counted by the group's weights, is the target. `patterns` makes whole zeros of them.
"""

from collections.abc import Callable, Mapping

from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern

Shapes = Mapping[str, Mapping[str, tuple[int, int]]]
"""By the group's name, then the layer's: rows and columns, (O, I)."""

_HALVINGS = 200


def percentage(pattern: SparsityPattern, ratios: str) -> float:
    """Return the target's fraction of zeros.

    Raises:
        InputError: the target is N:M, of which every group of M weights has the same share.
    """
    if pattern.fraction is None:
        raise InputError(f"--ratios {ratios} shares out a percentage such as 50%; {pattern} is the same everywhere")
    return pattern.fraction


def sizes(shapes: Shapes) -> dict[str, int]:
    """Return the number of weights of each group."""
    return {group: sum(rows * columns for rows, columns in layers.values()) for group, layers in shapes.items()}


def meet(
    target: float, sizes: Mapping[str, int], at: Callable[[float], dict[str, float]], low: float, high: float
) -> dict[str, float]:
    """Return the groups' fractions `at` the level, from `low` to `high`, where their mean by size is the target.

    `at` must not fall with the level, and its means at `low` and `high` must lie on either side of the target.
    """
    total = sum(sizes.values())
    for _ in range(_HALVINGS):
        level = (low + high) / 2
        mean = sum(fraction * sizes[group] for group, fraction in at(level).items()) / total
        low, high = (level, high) if mean < target else (low, level)
    return at(high)


def patterns(fractions: Mapping[str, float], shapes: Shapes) -> dict[str, SparsityPattern]:
    """Return every layer's pattern, by its name: as many whole zeros in each row as the group's fraction asks for.

    What one layer is over or under the next makes up for: together they have the zeros that the fractions come to, give or
    take half a column of the last layer. Every row loses at least one weight and keeps at least one.
    """
    found, owed = {}, 0.0
    for group, layers in shapes.items():
        for name, (rows, columns) in layers.items():
            owed += fractions[group] * rows * columns
            zeros = min(max(round(owed / rows), 1), columns - 1)
            owed -= zeros * rows
            found[name] = _losing(zeros, columns)
    return found


def _losing(zeros: int, columns: int) -> SparsityPattern:
    """Return the least percentage, of at most four decimals, that takes that many weights of a row; it survives `str`."""
    millionths = -(-zeros * 1_000_000 // columns)
    pattern = SparsityPattern.parse(f"{millionths // 10_000}.{millionths % 10_000:04d}%")
    assert pattern.zeros(columns) == zeros, "rows of a million weights and more need finer percentages"
    return pattern
