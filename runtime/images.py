"""From a picture to the numbers that a vision tower reads: transformers' PIL image processors, in numpy and Pillow.

Shapes: H height, W width, C channels (3); a picture on its way is `pixels_HWC`, the result `pixels_NCHW` with N = 1.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vlmc.runtime.deployment import ImagePipeline
from vlmc.runtime.errors import InputError

ImageLike = str | Path | bytes | Image.Image
"""A picture file's path, a picture file's bytes, or an open picture."""


def preprocess(picture: ImageLike, pipeline: ImagePipeline) -> NDArray[np.float32]:
    """Return the pixel values (1, 3, H, W) that transformers' processor gives for the picture.

    Raises:
        InputError: the picture is none, or cannot be read.
    """
    image = open_image(picture)
    if pipeline.resize is not None:
        height, width = target_size(image.height, image.width, pipeline.resize)
        image = image.resize((width, height), resample=Image.Resampling(pipeline.resample))
    pixels_HWC: NDArray[Any] = np.asarray(image)
    if pipeline.crop is not None:
        pixels_HWC = center_crop(pixels_HWC, *pipeline.crop)
    if pipeline.rescale is not None:
        pixels_HWC = (pixels_HWC.astype(np.float64) * pipeline.rescale).astype(np.float32)
    pixels_HWC = pixels_HWC.astype(np.float32)
    if pipeline.mean is not None and pipeline.std is not None:
        pixels_HWC = (pixels_HWC - np.array(pipeline.mean, np.float32)) / np.array(pipeline.std, np.float32)
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)[None])


def open_image(picture: ImageLike) -> Image.Image:
    """Return the picture in RGB, upright where a file's EXIF data says how, transparency on white.

    Raises:
        InputError: there is no such file, or it is no picture, or a damaged one.
    """
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    name = "the picture given as bytes" if isinstance(picture, bytes) else str(picture)
    if not isinstance(picture, bytes) and not Path(picture).is_file():
        raise InputError(f"no image at {name}")
    try:
        with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
            return to_rgb(ImageOps.exif_transpose(opened))
    except (OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{name} is no image that can be read") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB; what is transparent shows white, as in transformers since 5.23."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def target_size(height: int, width: int, resize: tuple[int, int] | tuple[int]) -> tuple[int, int]:
    """Return (height, width) after resizing: both given, or the shorter edge given and the ratio kept."""
    if len(resize) == 2:
        return resize
    edge = resize[0]
    longer = int(edge * max(height, width) / min(height, width))
    return (longer, edge) if width <= height else (edge, longer)


def center_crop(pixels_HWC: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Cut out the centre; a picture that is smaller is padded with zeros."""
    rows, columns = pixels_HWC.shape[:2]
    top, left = (rows - height) // 2, (columns - width) // 2
    if top >= 0 and left >= 0:
        return pixels_HWC[top : top + height, left : left + width]
    padded = np.zeros((max(height, rows), max(width, columns), pixels_HWC.shape[2]), pixels_HWC.dtype)
    above, before = -((rows - padded.shape[0]) // 2), -((columns - padded.shape[1]) // 2)
    padded[above : above + rows, before : before + columns] = pixels_HWC
    top, left = top + above, left + before
    return padded[max(0, top) : top + height, max(0, left) : left + width]
