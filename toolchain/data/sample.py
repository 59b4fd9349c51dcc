"""One question about one image, with its answer."""

from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from vlmc.runtime.images import open_picture


@dataclass(frozen=True)
class Sample:
    """A visual question with its expected answer.

    `image` is a picture or the path of one; `kind` groups questions in the tables of `vlmc eval`.
    """

    id: str
    image: Image.Image | Path
    question: str
    answer: str
    kind: str
    others: tuple[Image.Image | Path, ...] = ()

    @property
    def images(self) -> tuple[Image.Image | Path, ...]:
        """All its pictures: `image`, then the `others` that the question is about too."""
        return self.image, *self.others

    def load_images(self) -> list[Image.Image]:
        """Return all its pictures, each as `load_image` does."""
        return [replace(self, image=image).load_image() for image in self.images]

    def load_image(self) -> Image.Image:
        """Return the picture in RGB, opened as the runtime opens it.

        Raises:
            InputError: the file is no picture.
        """
        return open_picture(self.image)
