"""A digest of all that a sequence of samples holds, images included: equal data has the same one, wherever it lies."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.file_digests import FileDigests
from vlmc.toolchain.data.sample import Sample, SampleImage, Stored

_MISSING = "missing"


class Fingerprinted(ABC):
    """Samples that know a digest of themselves without being read one by one."""

    @abstractmethod
    def digest(self) -> str:
        """Return a digest of all that decides what the samples hold."""


def fingerprint(samples: Sequence[Sample]) -> str:
    """Return the number of samples, and a SHA-256 over the texts and the image files of all of them, in their order.

    Names, kinds and paths do not count: no result follows from them. A file that is missing counts as that.

    Raises:
        InputError: a row is broken.
    """
    found = samples.digest() if isinstance(samples, Fingerprinted) else _digest_of_each(samples)
    return f"{len(samples)}:{found.rpartition(':')[2]}"


def digest_of(texts: Iterable[str]) -> str:
    """Return one SHA-256 of several texts, whose order and bounds count."""
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
    except (OSError, ValueError, InputError):  # ValueError: a name that no file can have
        return _MISSING
