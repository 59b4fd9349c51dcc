"""Unreadable images: they are counted and left out up to a limit; beyond it the data is refused."""

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import chain, islice

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.fingerprint import Fingerprinted, fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.data.sequences.lazy import Chosen, LazySamples

_NAMED = 3  # unreadable images that a message names
_log = logging.getLogger(__name__)


class Limit:
    """How many images may be unreadable: a number, or a share such as 1 %, rounded down."""

    def __init__(self, text: str) -> None:
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?) ?%", text.strip())
        if match is None or float(match[2] or 0) > 100:
            raise InputError(f"--max-bad {text}: give a number of images, such as 10, or a share, such as 1%")
        self.text, self._count = text.strip(), int(match[1]) if match[1] else None
        self._share = float(match[2]) / 100 if match[2] else 0.0

    def of(self, total: int) -> int:
        """Return how many of `total` images may be unreadable."""
        return int(self._share * total + 1e-9) if self._count is None else self._count


class Tally:
    """The unreadable images of one source, by their index, and how many are allowed."""

    def __init__(self, name: str, limit: Limit, total: int) -> None:
        self.name, self.limit, self.total = name, limit, total
        self.allowed = limit.of(total)
        self.bad: dict[int, str] = {}

    def note(self, place: int, reason: str) -> None:
        """Count an unreadable image.

        Raises:
            InputError: it is one too many; the message names the first ones.
        """
        self.bad[place] = reason
        if len(self.bad) > self.allowed:
            raise InputError(self._refusal())

    def named(self) -> str:
        """Name the first unreadable images."""
        more = len(self.bad) - _NAMED
        return "; ".join(islice(self.bad.values(), _NAMED)) + (f"; and {more} more" if more > 0 else "")

    def _refusal(self) -> str:
        return (
            f"{self.name}: {_count(len(self.bad))}, but --max-bad {self.limit.text} of {self.total} allows {self.allowed}: "
            f"{self.named()}"
        )


def _fault(sample: Sample) -> str | None:
    """Open a sample's images; return why one cannot be read, or None."""
    try:
        sample.load_images()
    except InputError as error:
        return f"{sample.id}: {error}"
    return None


def _count(count: int) -> str:
    return f"{count} unreadable image{'s' if count != 1 else ''}"


class Screened(LazySamples, Fingerprinted):
    """Samples whose images are checked on first access; the next good sample replaces one with an unreadable image.

    The replacement depends on the data alone, not on the order of access.
    """

    def __init__(self, samples: Sequence[Sample], name: str, limit: Limit) -> None:
        self.samples, self._tally = samples, Tally(name, limit, len(samples))
        self.silent = False  # whether bad images are counted without a log line
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
        raise InputError(f"{self._tally.name}: none of the images can be read: {self._tally.named()}")

    def digest(self) -> str:
        """Return a digest of all samples, replaced ones too: they determine the replacements."""
        return fingerprint(self.samples)

    @property
    def bad(self) -> Mapping[int, str]:
        """The unreadable images met so far: the index of their sample, and what is wrong, in order."""
        return self._tally.bad

    def reserve(self, place: int) -> None:
        """Keep a sample from replacing another."""
        self._reserved[place] = 1

    def note(self, place: int, reason: str) -> None:
        """Leave out a sample with an unreadable image; one that was left out before counts once.

        Raises:
            InputError: it is one too many.
        """
        if place not in self._tally.bad:
            self._tally.note(place, reason)
            if not self.silent:
                _log.warning("%s: left out and replaced by the next sample: %s", self._tally.name, reason)

    def _open(self, place: int, sample: Sample) -> bool:
        reason = _fault(sample)
        if reason is None:
            self._good[place] = 1
            return True
        self.note(place, reason)
        return False


def screens(samples: Sequence[Sample]) -> list[Screened]:
    """Return every `Screened` that these samples come from, in a fixed order."""
    if isinstance(samples, Screened):
        return [samples]
    return [one for part in samples.parts for one in screens(part)] if isinstance(samples, LazySamples) else []


def readable(samples: Sequence[Sample], count: int | None, name: str, limit: Limit) -> Sequence[Sample]:
    """Open all images once and return the first `count` samples whose images can be read.

    Raises:
        InputError: too many images are unreadable, or too few samples are left.
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
        raise InputError(f"{name} has only {len(samples)} of the {count} samples that are needed{bad}")
    if tally.bad:
        _log.warning("%s: left out %s: %s", name, _count(len(tally.bad)), tally.named())
    return Chosen(samples, good)
