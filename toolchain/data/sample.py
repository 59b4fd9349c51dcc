"""One question about one image, with its answer."""

from dataclasses import dataclass
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

    def load_image(self) -> Image.Image:
        """Return the picture in RGB, opened as the runtime opens it.

        Raises:
            InputError: the file is no picture.
        """
        return open_picture(self.image)
