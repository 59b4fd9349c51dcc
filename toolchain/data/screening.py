"""Pictures that cannot be read: they are counted and left out up to a limit, and beyond it the data is refused."""

import logging
import re
from collections.abc import Sequence
from itertools import chain

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.lazy import Chosen, LazySamples
from vlmc.toolchain.data.sample import Sample

_NAMED = 3  # bad pictures that a message names
_log = logging.getLogger(__name__)


class Limit:
    """How many pictures may be bad: a number, or a share such as 1 %, of which the part after the point counts nothing."""

    def __init__(self, text: str) -> None:
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?) ?%", text.strip())
        if match is None or float(match[2] or 0) > 100:
            raise InputError(f"--max-bad {text}: give a number of pictures such as 10, or a share such as 1%")
        self.text, self._count = text.strip(), int(match[1]) if match[1] else None
        self._share = float(match[2]) / 100 if match[2] else 0.0

    def of(self, total: int) -> int:
        """Return how many of so many pictures may be bad."""
        return int(self._share * total + 1e-9) if self._count is None else self._count


class Tally:
    """The bad pictures of one source, and how many there may be of a total."""

    def __init__(self, name: str, limit: Limit, total: int) -> None:
        self.name, self.limit, self.total = name, limit, total
        self.allowed = limit.of(total)
        self.reasons: list[str] = []

    def readable(self, sample: Sample) -> bool:
        """Open a sample's picture and say whether it can be read.

        Raises:
            InputError: it is one bad picture too many; the message names the first ones.
        """
        try:
            sample.load_image()
        except InputError as error:
            self.reasons.append(f"{sample.id}: {error}")
            if len(self.reasons) > self.allowed:
                raise InputError(self._refusal()) from None
            return False
        return True

    def named(self) -> str:
        """Name the first bad pictures."""
        more = len(self.reasons) - _NAMED
        return "; ".join(self.reasons[:_NAMED]) + (f"; and {more} more" if more > 0 else "")

    def _refusal(self) -> str:
        return (
            f"{self.name}: {_bad(len(self.reasons))}, --max-bad {self.limit.text} of {self.total} allows {self.allowed}: "
            f"{self.named()}"
        )


def _bad(count: int) -> str:
    return f"{count} picture{'s' if count != 1 else ''} that cannot be read"


class Screened(LazySamples):
    """Samples whose pictures are opened when they are first asked for; for a bad one the next good one stands in.

    What stands in for a sample follows from the data alone, not from what was asked for before.
    """

    def __init__(self, samples: Sequence[Sample], name: str, limit: Limit) -> None:
        self.samples, self._tally = samples, Tally(name, limit, len(samples))
        self._good, self._bad = bytearray(len(samples)), bytearray(len(samples))

    def __len__(self) -> int:
        return len(self.samples)

    def at(self, index: int) -> Sample:
        for place in chain(range(index, len(self)), range(index)):
            if not self._bad[place]:
                sample = self.samples[place]
                if self._good[place] or self._open(place, sample):
                    return sample
        raise InputError(f"{self._tally.name}: no picture can be read: {self._tally.named()}")

    def _open(self, place: int, sample: Sample) -> bool:
        good = self._tally.readable(sample)
        (self._good if good else self._bad)[place] = 1
        if not good:
            _log.warning("%s: left out, the next one stands in: %s", self._tally.name, self._tally.reasons[-1])
        return good


def readable(samples: Sequence[Sample], count: int | None, name: str, limit: Limit) -> Sequence[Sample]:
    """Open all pictures once and return the samples that have good ones, the first `count` of them.

    Raises:
        InputError: too many pictures are bad, or too few samples are left.
    """
    tally = Tally(name, limit, len(samples) if count is None else count)
    good: list[int] = []
    for index, sample in enumerate(samples):
        if len(good) == count:
            break
        if tally.readable(sample):
            good.append(index)
    if count is not None and len(good) < count:
        bad = f", with {_bad(len(tally.reasons))}: {tally.named()}" if tally.reasons else ""
        raise InputError(f"{name} holds {len(samples)} samples, {count} were asked for{bad}")
    if tally.reasons:
        _log.warning("%s: left out %s: %s", name, _bad(len(tally.reasons)), tally.named())
    return Chosen(samples, good)
