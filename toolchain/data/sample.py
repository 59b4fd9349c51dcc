"""A sample: one question about images, with its answer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from vlmc.runtime.errors import InputError
from vlmc.runtime.images import open_image

MARK = "<image>"
"""Marks the place of an image in a question."""


class Stored(ABC):
    """An image file stored inside another file; `str()` says where."""

    @abstractmethod
    def read(self) -> bytes:
        """Read the image file's bytes.

        Raises:
            InputError, OSError: they cannot be read.
        """


SampleImage: TypeAlias = Image.Image | Path | bytes | Stored
"""An open image, an image file's path or bytes, or where those bytes are stored."""


@dataclass(frozen=True)
class Sample:
    """A question about any number of images, with its expected answer.

    The question has a `MARK` for each image, or none: then the images come first. `kind` groups questions in the tables of
    `vlmc eval`; `system` is the system prompt; `references` are all reference answers where there are several. Plain text
    has neither question nor images: all of it is the answer.
    """

    id: str
    images: tuple[SampleImage, ...]
    question: str
    answer: str
    kind: str
    system: str = ""
    references: tuple[str, ...] = ()

    @property
    def expected(self) -> tuple[str, ...]:
        """All answers that an answer is scored against."""
        return self.references or (self.answer,)

    @property
    def is_plain(self) -> bool:
        """Whether it is plain text, to read and not to answer."""
        return not (self.question or self.images)

    def load_images(self) -> list[Image.Image]:
        """Return the images in RGB, opened as the runtime opens them.

        Raises:
            InputError: one is missing or cannot be read.
        """
        return [_open(image) for image in self.images]

    def load_image(self) -> Image.Image:
        """Return the only image, as `load_images` does.

        Raises:
            InputError: the sample does not have exactly one.
        """
        if len(self.images) != 1:
            raise InputError(f"sample {self.id} has {len(self.images)} images, not one")
        return _open(self.images[0])


def _open(image: SampleImage) -> Image.Image:
    if not isinstance(image, Stored):
        return open_image(image)
    try:
        content = image.read()
    except OSError as error:
        raise InputError(f"{image} cannot be read: {error.strerror}") from None
    try:
        return open_image(content)
    except InputError:
        raise InputError(f"{image} is not a readable image") from None
