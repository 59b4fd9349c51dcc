"""Pictures that cannot be read: they are counted and left out up to a limit, and beyond it the data is refused."""

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import chain, islice

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.fingerprint import Fingerprinted, fingerprint
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
    """The bad pictures of one source, by their places in it, and how many there may be of a total."""

    def __init__(self, name: str, limit: Limit, total: int) -> None:
        self.name, self.limit, self.total = name, limit, total
        self.allowed = limit.of(total)
        self.bad: dict[int, str] = {}

    def note(self, place: int, reason: str) -> None:
        """Count a bad picture.

        Raises:
            InputError: it is one too many; the message names the first ones.
        """
        self.bad[place] = reason
        if len(self.bad) > self.allowed:
            raise InputError(self._refusal())

    def named(self) -> str:
        """Name the first bad pictures."""
        more = len(self.bad) - _NAMED
        return "; ".join(islice(self.bad.values(), _NAMED)) + (f"; and {more} more" if more > 0 else "")

    def _refusal(self) -> str:
        return (
            f"{self.name}: {_count(len(self.bad))}, --max-bad {self.limit.text} of {self.total} allows {self.allowed}: "
            f"{self.named()}"
        )


def _fault(sample: Sample) -> str | None:
    """Open a sample's images; return why one cannot be read, None where all can."""
    try:
        sample.load_images()
    except InputError as error:
        return f"{sample.id}: {error}"
    return None


def _count(count: int) -> str:
    return f"{count} picture{'s' if count != 1 else ''} that cannot be read"


class Screened(LazySamples, Fingerprinted):
    """Samples whose pictures are opened when they are first asked for; for a bad one the next good one stands in.

    What stands in for a sample follows from the data alone, not from what was asked for before.
    """

    def __init__(self, samples: Sequence[Sample], name: str, limit: Limit) -> None:
        self.samples, self._tally = samples, Tally(name, limit, len(samples))
        self.silent = False  # whether bad pictures are counted without a log line
        self._good = bytearray(len(samples))
        self._reserved = bytearray(len(samples))

    def __len__(self) -> int:
        return len(self.samples)

    def at(self, index: int) -> Sample:
        for place in chain(range(index, len(self)), range(index)):
            if place not in self._tally.bad and (place == index or not self._reserved[place]):
                sample = self.samples[place]
                if self._good[place] or self._open(place, sample):
                    return sample
        raise InputError(f"{self._tally.name}: no picture can be read: {self._tally.named()}")

    def digest(self) -> str:
        """Return a digest of all the samples, bad ones too: what stands in for what follows from them."""
        return fingerprint(self.samples)

    @property
    def bad(self) -> Mapping[int, str]:
        """The bad pictures that were met: their places in the samples, and what is wrong with each, the first one first."""
        return self._tally.bad

    def reserve(self, place: int) -> None:
        """Let the sample at a place never stand in for another."""
        self._reserved[place] = 1

    def note(self, place: int, reason: str) -> None:
        """Leave a bad picture out, wherever it was met; one that is left out already counts once.

        Raises:
            InputError: it is one too many.
        """
        if place not in self._tally.bad:
            self._tally.note(place, reason)
            if not self.silent:
                _log.warning("%s: left out, the next one stands in: %s", self._tally.name, reason)

    def _open(self, place: int, sample: Sample) -> bool:
        reason = _fault(sample)
        if reason is None:
            self._good[place] = 1
            return True
        self.note(place, reason)
        return False


def screens(samples: Sequence[Sample]) -> list[Screened]:
    """Return all that leaves bad pictures out where these samples come from, in one order."""
    if isinstance(samples, Screened):
        return [samples]
    return [one for part in samples.parts for one in screens(part)] if isinstance(samples, LazySamples) else []


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
        if (reason := _fault(sample)) is None:
            good.append(index)
        else:
            tally.note(index, reason)
    if count is not None and len(good) < count:
        bad = f", with {_count(len(tally.bad))}: {tally.named()}" if tally.bad else ""
        raise InputError(f"{name} holds {len(samples)} samples, {count} were asked for{bad}")
    if tally.bad:
        _log.warning("%s: left out %s: %s", name, _count(len(tally.bad)), tally.named())
    return Chosen(samples, good)
