"""How a picture becomes the numbers that a vision tower reads, as data."""

from pydantic import BaseModel, ConfigDict


class ImagePipeline(BaseModel):
    """The steps of transformers' PIL image processors, in their order; a step that is None is left out.

    `resize` is (height, width), or (shortest edge,); `crop` is (height, width) of the centre; `resample` is Pillow's
    number of the filter; pixel values are multiplied by `rescale`, then normalised by `mean` and `std` per channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: tuple[int, int] | tuple[int] | None = None
    resample: int = 3
    crop: tuple[int, int] | None = None
    rescale: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
