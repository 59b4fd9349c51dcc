"""Sharing out a percentage over groups of layers, such as blocks, by how much each can lose.

A method (`owl`, `ecoflap`) turns one score of each group into the group's fraction of zeros; the mean of the fractions,
weighted by the groups' sizes, is the target. `patterns` turns them into whole numbers of zeros.
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
        InputError: the target is N:M, where every group of M weights has the same share.
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
    """Return the groups' fractions `at` that level between `low` and `high` where their mean, by size, is the target.

    `at` must not fall as the level rises, and its means at `low` and `high` must be on either side of the target.
    """
    total = sum(sizes.values())
    for _ in range(_HALVINGS):
        level = (low + high) / 2
        mean = sum(fraction * sizes[group] for group, fraction in at(level).items()) / total
        low, high = (level, high) if mean < target else (low, level)
    return at(high)


def patterns(fractions: Mapping[str, float], shapes: Shapes) -> dict[str, SparsityPattern]:
    """Return every layer's pattern, by its name: the group's fraction, rounded to a whole number of zeros in each row.

    The next layer makes up for what one is over or under: together they have the zeros that the fractions come to, give or
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
    """Return the smallest percentage, of at most four decimals, that prunes that many weights of a row; `str` keeps it."""
    millionths = -(-zeros * 1_000_000 // columns)
    pattern = SparsityPattern.parse(f"{millionths // 10_000}.{millionths % 10_000:04d}%")
    assert pattern.zeros(columns) == zeros, "rows of a million weights and more need finer percentages"
    return pattern
