"""Samples that are drawn from a seed when they are accessed, as the built-in data sets are."""

from collections.abc import Callable, Iterator, Sequence
from typing import final, overload

from vlmc.toolchain.data.fingerprint import Fingerprinted, digest_of, fingerprint
from vlmc.toolchain.data.sample import Sample


@final
class DrawnSamples(Sequence[Sample], Fingerprinted):
    """Questions of some kinds in turn; an index gives the same sample for any count.

    `draw` returns the sample of a kind and a number within it. For the digest the first `drawn` samples are drawn: all
    others are drawn in the same way.
    """

    def __init__(
        self, split: str, length: int, kinds: tuple[str, ...], draw: Callable[[str, int], Sample], drawn: int
    ) -> None:
        self.split, self.length, self.kinds = split, length, kinds
        self._draw, self._drawn = draw, drawn

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Sample]:
        return (self._at(index) for index in range(self.length))

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self._at(one) for one in range(self.length)[index]]
        return self._at(range(self.length)[index])

    def digest(self) -> str:
        drawn = [self._at(index) for index in range(min(self._drawn, self.length))]
        return digest_of([self.split, str(self.length), *self.kinds, fingerprint(drawn)])

    def _at(self, index: int) -> Sample:
        number, place = divmod(index, len(self.kinds))
        return self._draw(self.kinds[place], number)
