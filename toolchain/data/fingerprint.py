"""A digest of a sequence of samples, images included: equal data has the same digest, wherever its files are."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from vlmc.runtime.artifact.file_digests import FileDigests
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.sample import Sample, SampleImage, Stored

_MISSING = "missing"


class Fingerprinted(ABC):
    """Samples with a digest that does not need each of them to be read."""

    @abstractmethod
    def digest(self) -> str:
        """Return a digest of everything that determines the samples."""


def fingerprint(samples: Sequence[Sample]) -> str:
    """Return the number of samples and a SHA-256 over their texts and image files, in order.

    Ids, kinds and paths are left out, since no result depends on them. A missing file is digested as missing.

    Raises:
        InputError: a row is invalid.
    """
    found = samples.digest() if isinstance(samples, Fingerprinted) else _digest_of_each(samples)
    return f"{len(samples)}:{found.rpartition(':')[2]}"


def digest_of(texts: Iterable[str]) -> str:
    """Return one SHA-256 of several texts; their order and boundaries matter."""
    found = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", errors="surrogatepass")
        found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()


def _digest_of_each(samples: Sequence[Sample]) -> str:
    with FileDigests() as files:
        return digest_of(digest_of(_parts(sample, files)) for sample in samples)


def _parts(sample: Sample, files: FileDigests) -> Iterable[str]:
    yield from (sample.system, sample.question, sample.answer)
    yield from (_image(image, files) for image in sample.images)


def _image(image: SampleImage, files: FileDigests) -> str:
    if isinstance(image, Image.Image):
        return digest_of([image.mode, str(image.size), hashlib.sha256(image.tobytes()).hexdigest()])
    try:
        if isinstance(image, Path):
            return files.of(image)
        return hashlib.sha256(image.read() if isinstance(image, Stored) else image).hexdigest()
    except (OSError, ValueError, InputError):  # ValueError: an impossible file name
        return _MISSING
