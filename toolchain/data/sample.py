"""One question about one picture, or about several, with its answer."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vlmc.runtime.images import open_picture


@dataclass(frozen=True)
class Sample:
    """A visual question with its expected answer.

    `image` is a picture or the path of one, `others` are those that the question is about too; `kind` groups questions in
    the tables of `vlmc eval`.
    """

    id: str
    image: Image.Image | Path
    question: str
    answer: str
    kind: str
    others: tuple[Image.Image | Path, ...] = ()

    @property
    def images(self) -> tuple[Image.Image | Path, ...]:
        """All its pictures."""
        return self.image, *self.others

    def load_image(self) -> Image.Image:
        """Return the first picture in RGB, opened as the runtime opens it.

        Raises:
            InputError: the file is no picture.
        """
        return open_picture(self.image)

    def load_images(self) -> list[Image.Image]:
        """Return all pictures in RGB.

        Raises:
            InputError: a file is no picture.
        """
        return [open_picture(image) for image in self.images]
