"""One question about one image, with its answer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from vlmc.runtime.errors import InputError
from vlmc.runtime.images import open_picture


class Stored(ABC):
    """A picture file that lies inside another file; `str()` says where."""

    @abstractmethod
    def read(self) -> bytes:
        """Read the picture file's bytes.

        Raises:
            InputError, OSError: there are none.
        """


Picture: TypeAlias = Image.Image | Path | bytes | Stored
"""A picture, the path or the bytes of a picture file, or where those bytes are read from."""


@dataclass(frozen=True)
class Sample:
    """A visual question with its expected answer.

    `kind` groups questions in the tables of `vlmc eval`.
    """

    id: str
    image: Picture
    question: str
    answer: str
    kind: str
    others: tuple[Picture, ...] = ()

    @property
    def images(self) -> tuple[Picture, ...]:
        """All its pictures: `image`, then the `others` that the question is about too."""
        return self.image, *self.others

    def load_images(self) -> list[Image.Image]:
        """Return all its pictures, each as `load_image` does."""
        return [replace(self, image=image).load_image() for image in self.images]

    def load_image(self) -> Image.Image:
        """Return the picture in RGB, opened as the runtime opens it.

        Raises:
            InputError: there is no picture, or it cannot be read.
        """
        if not isinstance(self.image, Stored):
            return open_picture(self.image)
        try:
            content = self.image.read()
        except OSError as error:
            raise InputError(f"{self.image} cannot be read: {error.strerror}") from None
        try:
            return open_picture(content)
        except InputError:
            raise InputError(f"{self.image} is no image that can be read") from None
