"""One question about one image, with its answer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Sample:
    """A visual question with its expected answer.

    `image` is a picture, the path or the bytes of a picture file, or where those bytes are read from; `kind` groups
    questions in the tables of `vlmc eval`.
    """

    id: str
    image: Image.Image | Path | bytes | Stored
    question: str
    answer: str
    kind: str

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
