"""Sparsity patterns: N:M along the reduction axis, or a percentage of every row.

Shapes: O out features, I in features; a weight is `weight_OI` as in `torch.nn.Linear`. Groups of M run along I, the axis
that sparse tensor cores reduce over. Every function takes numpy arrays and torch tensors alike and stays on their device.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from vlmc.runtime.errors import InputError

Array = Any  # numpy.ndarray or torch.Tensor: the runtime must not import torch to name its type

_N_M = re.compile(r"(\d+):(\d+)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class SparsityPattern:
    """Which weights may stay: `n` of every `m` consecutive ones, or all but a `fraction` of every row.

    Exactly one of (`n`, `m`) and `fraction` is set; build it with `parse`.
    """

    n: int | None = None
    m: int | None = None
    fraction: float | None = None

    @classmethod
    def parse(cls, text: str) -> "SparsityPattern":
        """Read `"2:4"`, `"4:8"` or `"50%"` (percentage of zeros).

        Raises:
            InputError: the text has another form, N is not below M, or the percentage is not between 0 and 100.
        """
        if found := _N_M.fullmatch(text.strip()):
            n, m = int(found[1]), int(found[2])
            if 0 < n < m:
                return cls(n=n, m=m)
        if (found := _PERCENT.fullmatch(text.strip())) and 0 < float(found[1]) < 100:
            return cls(fraction=float(found[1]) / 100)
        raise InputError(f"unknown sparsity {text!r}: give N:M with 0 < N < M such as 2:4, or a percentage such as 50%")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.fraction is None else f"{self.fraction * 100:g}%"

    @property
    def density(self) -> float:
        """The fraction of weights that stay."""
        return 1 - self.fraction if self.fraction is not None else self._n / self._m

    @property
    def _n(self) -> int:
        assert self.n is not None
        return self.n

    @property
    def _m(self) -> int:
        assert self.m is not None
        return self.m

    def divides(self, columns: int) -> bool:
        """Whether a row of that many weights divides into whole groups."""
        return self.fraction is not None or columns % self._m == 0

    def zeros(self, columns: int) -> int:
        """The number of zeros that a row of that many weights must have."""
        if self.fraction is not None:
            return math.floor(columns * self.fraction + 1e-9)
        return columns // self._m * (self._m - self._n)

    def mask(self, scores_OI: Array) -> Array:
        """Return the boolean keep-mask (O, I) of the highest scores: per group for N:M, per row for a percentage.

        Ties keep the earlier column, so equal input gives an equal mask on every machine.
        """
        if self.fraction is not None:
            return keep_highest(scores_OI, scores_OI.shape[-1] - self.zeros(scores_OI.shape[-1]))
        groups = scores_OI.reshape(scores_OI.shape[0], -1, self._m)
        mask = groups == groups
        for place, kept in enumerate(_among_highest([groups[..., place] for place in range(self._m)], self._n)):
            mask[..., place] = kept
        return mask.reshape(scores_OI.shape)

    def violations(self, zero_OI: Array) -> Array:
        """Return which groups (O, I/M), or rows (O, 1), hold too few zeros, given the boolean map of zeros (O, I)."""
        if self.fraction is not None:
            return (zero_OI.sum(-1) < self.zeros(zero_OI.shape[-1])).reshape(-1, 1)
        groups = zero_OI.reshape(zero_OI.shape[0], -1, self._m)
        return _fewer([groups[..., place] for place in range(self._m)], self._m - self._n)

    def holds(self, weight_OI: Array) -> bool:
        """Whether the weight's zeros satisfy the pattern; never for a weight whose rows do not divide into whole groups."""
        return self.divides(weight_OI.shape[-1]) and not bool(self.violations(weight_OI == 0).any())


def keep_highest(scores: Array, count: int) -> Array:
    """Return a boolean mask of the `count` highest scores along the last axis; ties keep the earlier one."""
    order = (-scores).argsort(axis=-1, stable=True)
    return order.argsort(axis=-1, stable=True) < count


def _among_highest(columns: Sequence[Array], count: int) -> list[Array]:
    """Return for each of M arrays of one shape where it is among the `count` highest; ties keep the earlier array.

    Every two are compared once, which for small M is far quicker than sorting. NaN is below all numbers, as in a sort.
    """
    missing = [column != column for column in columns]
    pairs = combinations(range(len(columns)), 2)
    ahead = {(i, j): (columns[i] >= columns[j]) | missing[j] for i, j in pairs}

    return [
        _fewer([*(ahead[i, j] for i in range(j)), *(~ahead[j, k] for k in range(j + 1, len(columns)))], count)
        for j in range(len(columns))
    ]


def _fewer(flags: Sequence[Array], count: int) -> Array:
    """Return where fewer than `count` of the boolean arrays are true."""
    reached = [flags[0]]  # at least 1, 2, ... of those seen so far
    for flag in flags[1:]:
        both = [old & flag for old in reached]
        reached = [reached[0] | flag, *(old | new for old, new in zip(reached[1:], both, strict=False)), both[-1]][:count]
    return ~reached[-1]
