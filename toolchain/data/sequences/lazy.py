"""Lazy sequences: a sample is made when it is accessed."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from vlmc.toolchain.data.sample import Sample


class LazySamples(Sequence[Sample]):
    """A sequence whose samples are made one at a time and not kept.

    `parts` are the sequences that it takes its samples from, if any.
    """

    parts: Sequence[Sequence[Sample]] = ()

    @abstractmethod
    def at(self, index: int) -> Sample:
        """Make the sample at an index from 0 to `len(self) - 1`."""

    def origin(self, index: int) -> tuple[Sequence[Sample], int]:
        """Return the innermost sequence that holds a sample, and its index there; no image is opened."""
        return self, index

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        places = range(len(self))[index]
        return Chosen(self, places) if isinstance(places, range) else self.at(places)


class Chosen(LazySamples):
    """Some samples of another sequence, by their indices there."""

    def __init__(self, samples: Sequence[Sample], indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices
        self.parts = (samples,)

    def __len__(self) -> int:
        return len(self.indices)

    def at(self, index: int) -> Sample:
        return self.samples[self.indices[index]]

    def origin(self, index: int) -> tuple[Sequence[Sample], int]:
        return origin_of(self.samples, self.indices[index])


def origin_of(samples: Sequence[Sample], index: int) -> tuple[Sequence[Sample], int]:
    """Return `LazySamples.origin`; for any other sequence, the sequence itself and the index."""
    return samples.origin(index) if isinstance(samples, LazySamples) else (samples, index)
