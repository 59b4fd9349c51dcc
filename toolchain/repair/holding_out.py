"""A part of a user's own data that is kept from training, to validate on: drawn by the seed, whole pictures at a time.

Samples that name one picture stay together, so that no picture is on both sides: by its path, by its place in a Parquet,
tar or hub file, or by its bytes. Two copies of a picture in two places are not noticed.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import NamedTuple

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.lazy import Chosen, origin_of
from vlmc.toolchain.data.sample import Picture, Sample, Stored
from vlmc.toolchain.data.screening import Screened

MOST = 500  # samples that a share holds out
LEAST = 40  # samples of which a share is taken; fewer are all trained on


class Parts(NamedTuple):
    """Samples to train on and to validate on, and what to tell the user where there are none of these though asked for."""

    train: Sequence[Sample]
    validation: Sequence[Sample]
    notice: str | None = None


def hold_out(samples: Sequence[Sample], part: str, seed: int) -> Parts:
    """Split samples as `--hold-out` says: a share such as 5%, of at most `MOST`, or a number; 0 holds nothing out.

    A picture is held out with all its samples, or not at all. A sample of several pictures of which one is held out in
    another is in neither part. Held-out pictures that cannot be read are dropped, and none of the others stands in for a
    picture that training cannot read.

    Raises:
        InputError: nothing would be left to train on, or too many pictures cannot be read.
    """
    is_share, number = part.endswith("%"), float(part.removesuffix("%"))
    if number == 0:
        return Parts(samples, ())
    count = min(MOST, int(len(samples) * number / 100)) if is_share else int(number)
    if is_share and (len(samples) < LEAST or not count):
        return Parts(samples, (), f"{_told(samples)}: too few to hold {part} out, all are trained on; --hold-out N takes N")
    if count >= len(samples):
        raise InputError(f"--hold-out {part} leaves nothing of {_told(samples)} to train on: hold out fewer")
    pictures = _pictures(samples)
    held = _draw(pictures, count, seed)
    seen = {picture for index in held for picture in pictures[index]}
    train = [index for index, some in enumerate(pictures) if seen.isdisjoint(some)]
    readable = _readable(samples, held)
    if not readable or not train:
        return Parts(samples, (), f"{_told(samples)}: their pictures are too few to hold some out; all are trained on")
    return Parts(Chosen(samples, train), Chosen(samples, readable))


def _told(samples: Sequence[Sample]) -> str:
    return f"{len(samples)} sample{'s' if len(samples) != 1 else ''}"


def _draw(pictures: Sequence[Sequence[int]], count: int, seed: int) -> list[int]:
    """Return at most `count` places: drawn one after the other, each with all that have the same first picture."""
    members = defaultdict[int, list[int]](list)
    for index, some in enumerate(pictures):
        members[some[0]].append(index)
    order = list(members)
    Random(f"vlmc hold out {seed}").shuffle(order)
    held: list[int] = []
    for picture in order:
        if len(held) + len(members[picture]) <= count:
            held += members[picture]
    return sorted(held)


def _pictures(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Return the pictures of every sample, as numbers; no picture is opened."""
    numbers: dict[Hashable, int] = {}
    return [tuple(numbers.setdefault(key, len(numbers)) for key in _keys(samples, i)) for i in range(len(samples))]


def _keys(samples: Sequence[Sample], index: int) -> list[Hashable]:
    source, place = origin_of(samples, index)
    alone: Hashable = (id(source), place)
    try:
        sample = source.samples[place] if isinstance(source, Screened) else source[place]
    except InputError:  # a broken row is told of by whoever trains on it
        return [alone]
    return [_key(image, alone) for image in sample.images]


def _key(image: Picture, alone: Hashable) -> Hashable:
    if isinstance(image, (Path, Stored)):
        return str(image)
    return sha256(image).digest() if isinstance(image, bytes) else alone


def _readable(samples: Sequence[Sample], held: Sequence[int]) -> list[int]:
    """Open the pictures that are held out; return the places of those that are good."""
    sources = {index: origin_of(samples, index) for index in held}
    for source, place in sources.values():
        if isinstance(source, Screened):
            source.reserve(place)
    return [index for index, (source, place) in sources.items() if _is_good(source, place)]


def _is_good(source: Sequence[Sample], place: int) -> bool:
    if not isinstance(source, Screened):
        return True
    source.at(place)  # opens the picture
    return place not in source.bad
