"""The part of a user's own data that is held out to validate on: drawn by the seed, whole images at a time.

Samples of the same image stay together, so that no image is on both sides. An image is known by its path, by its place in
a Parquet, tar or hub file, or by its bytes; two copies in two places are not noticed.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import NamedTuple

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.sample import Sample, SampleImage, Stored
from vlmc.toolchain.data.sequences.lazy import Chosen, origin_of
from vlmc.toolchain.data.sequences.screening import Screened

MOST = 500  # a share holds out no more samples than this
LEAST = 40  # of fewer samples no share is held out


class Parts(NamedTuple):
    """Samples to train on and to validate on; `notice` tells the user why none are held out although asked for."""

    train: Sequence[Sample]
    validation: Sequence[Sample]
    notice: str | None = None


def hold_out(samples: Sequence[Sample], part: str, seed: int) -> Parts:
    """Split samples as `--hold-out` says: a share such as 5%, of at most `MOST`, or a number; 0 holds nothing out.

    An image is held out with all its samples, or not at all. A sample of several images, one of which another sample holds
    out, is in neither part. Held-out images that cannot be read are dropped; no held-out image replaces one that training
    cannot read.

    Raises:
        InputError: nothing would be left to train on, or too many images cannot be read.
    """
    is_share, number = part.endswith("%"), float(part.removesuffix("%"))
    if number == 0:
        return Parts(samples, ())
    count = min(MOST, int(len(samples) * number / 100)) if is_share else int(number)
    if is_share and (len(samples) < LEAST or not count):
        return Parts(samples, (), f"{_told(samples)}: too few to hold {part} out, all are trained on; --hold-out N takes N")
    if count >= len(samples):
        raise InputError(f"--hold-out {part} leaves nothing of {_told(samples)} to train on: hold out fewer")
    images = _images(samples)
    held = _draw(images, count, seed)
    seen = {image for index in held for image in images[index]}
    train = [index for index, some in enumerate(images) if seen.isdisjoint(some)]
    readable = _readable(samples, held)
    if not readable or not train:
        return Parts(samples, (), f"{_told(samples)}: their images are too few to hold some out; all are trained on")
    return Parts(Chosen(samples, train), Chosen(samples, readable))


def _told(samples: Sequence[Sample]) -> str:
    return f"{len(samples)} sample{'s' if len(samples) != 1 else ''}"


def _draw(images: Sequence[Sequence[int]], count: int, seed: int) -> list[int]:
    """Return at most `count` places: drawn one after the other, each with all that have the same first image."""
    members = defaultdict[int, list[int]](list)
    for index, some in enumerate(images):
        members[some[0]].append(index)
    order = list(members)
    Random(f"vlmc hold out {seed}").shuffle(order)
    held: list[int] = []
    for image in order:
        if len(held) + len(members[image]) <= count:
            held += members[image]
    return sorted(held)


def _images(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Return the images of every sample, as numbers; no image is opened."""
    numbers: dict[Hashable, int] = {}
    return [tuple(numbers.setdefault(key, len(numbers)) for key in _keys(samples, i)) for i in range(len(samples))]


def _keys(samples: Sequence[Sample], index: int) -> list[Hashable]:
    source, place = origin_of(samples, index)
    alone: Hashable = (id(source), place)
    try:
        sample = source.samples[place] if isinstance(source, Screened) else source[place]
    except InputError:  # training reports a broken row
        return [alone]
    return [_key(image, alone) for image in sample.images] or [alone]


def _key(image: SampleImage, alone: Hashable) -> Hashable:
    if isinstance(image, (Path, Stored)):
        return str(image)
    return sha256(image).digest() if isinstance(image, bytes) else alone


def _readable(samples: Sequence[Sample], held: Sequence[int]) -> list[int]:
    """Open the images that are held out; return the places of those that can be read."""
    sources = {index: origin_of(samples, index) for index in held}
    for source, place in sources.values():
        if isinstance(source, Screened):
            source.reserve(place)
    return [index for index, (source, place) in sources.items() if _is_good(source, place)]


def _is_good(source: Sequence[Sample], place: int) -> bool:
    if not isinstance(source, Screened):
        return True
    source.at(place)  # opens the image
    return place not in source.bad
