"""Mixtures: samples of several sources, interleaved in exact proportion to their weights.

`datasets.interleave_datasets` draws the source of each sample at random, so that shares hold only on average.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np

from vlmc.toolchain.data.fingerprint import Fingerprinted, digest_of, fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.data.sequences.lazy import LazySamples, origin_of


class Mixture(LazySamples, Fingerprinted):
    """One epoch of a mixture: every source in order; shorter ones repeat.

    The first n samples contain n times a source's share of it, to within one or two: nothing is random.
    """

    def __init__(self, parts: Sequence[Sequence[Sample]], counts: Sequence[int]) -> None:
        self.parts, self._counts = parts, list(counts)
        self._order = interleave(counts)
        self._numbers = np.empty_like(self._order, dtype=np.int64)  # the index of each sample in its source
        for part, count in enumerate(counts):
            self._numbers[self._order == part] = np.arange(count)

    def __len__(self) -> int:
        return len(self._order)

    def at(self, index: int) -> Sample:
        part, number = self._find(index)
        return part[number]

    def origin(self, index: int) -> tuple[Sequence[Sample], int]:
        return origin_of(*self._find(index))

    def _find(self, index: int) -> tuple[Sequence[Sample], int]:
        part = self.parts[int(self._order[index])]
        return part, int(self._numbers[index]) % len(part)

    def digest(self) -> str:
        return digest_of([*map(str, self._counts), *map(fingerprint, self.parts)])


def interleave(counts: Sequence[int]) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    """Return the source of each sample, given how many each source has, spread evenly."""
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    sources = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return sources[np.argsort(places, kind="stable")]


def epoch_counts(lengths: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Return each source's samples in an epoch: in proportion to the weights, and at least all of them."""
    times = max(length / weight for length, weight in zip(lengths, weights, strict=True))
    return [max(length, ceil(times * weight - 1e-9)) for length, weight in zip(lengths, weights, strict=True)]


def share(count: int, weights: Sequence[float]) -> list[int]:
    """Split a count in proportion to the weights, rounded by the largest remainder."""
    exact = [count * weight / sum(weights) for weight in weights]
    counts = [int(part) for part in exact]
    order = sorted(range(len(weights)), key=lambda index: (counts[index] - exact[index], index))
    for index in order[: count - sum(counts)]:
        counts[index] += 1
    return counts
