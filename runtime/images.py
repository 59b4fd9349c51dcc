"""From an image to the pixel values that a vision tower reads: transformers' PIL image processors, in numpy and Pillow.

Shapes: H height, W width, C channels (3); in between an image is `pixels_HWC`, the result is `pixels_NCHW` with N = 1.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vlmc.runtime.deployment import ImagePipeline
from vlmc.runtime.errors import InputError

ImageInput = str | Path | bytes | Image.Image
"""The path of an image file, the bytes of one, or an image in Pillow."""


def preprocess(given: ImageInput, pipeline: ImagePipeline) -> NDArray[np.float32]:
    """Return the pixel values (1, 3, H, W) that transformers' processor gives for the image.

    Raises:
        InputError: it is not an image, or cannot be read.
    """
    image = open_image(given)
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


def open_image(given: ImageInput) -> Image.Image:
    """Return the image in RGB, turned upright by its EXIF data, with white where it is transparent.

    Raises:
        InputError: there is no such file, or it is not an image, or is damaged.
    """
    if isinstance(given, Image.Image):
        return to_rgb(given)
    name = "the image given as bytes" if isinstance(given, bytes) else str(given)
    if not isinstance(given, bytes) and not Path(given).is_file():
        raise InputError(f"no image at {name}")
    try:
        with Image.open(BytesIO(given) if isinstance(given, bytes) else given) as opened:
            return to_rgb(ImageOps.exif_transpose(opened))
    except (OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{name} is not an image that can be read") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB, with white where the image is transparent, as in transformers since 5.23."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def target_size(height: int, width: int, resize: tuple[int, int] | tuple[int]) -> tuple[int, int]:
    """Return (height, width) after resizing: as given, or from the shorter edge, keeping the ratio."""
    if len(resize) == 2:
        return resize
    edge = resize[0]
    longer = int(edge * max(height, width) / min(height, width))
    return (longer, edge) if width <= height else (edge, longer)


def center_crop(pixels_HWC: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Cut out the centre; a smaller image is padded with zeros."""
    rows, columns = pixels_HWC.shape[:2]
    top, left = (rows - height) // 2, (columns - width) // 2
    if top >= 0 and left >= 0:
        return pixels_HWC[top : top + height, left : left + width]
    padded = np.zeros((max(height, rows), max(width, columns), pixels_HWC.shape[2]), pixels_HWC.dtype)
    above, before = -((rows - padded.shape[0]) // 2), -((columns - padded.shape[1]) // 2)
    padded[above : above + rows, before : before + columns] = pixels_HWC
    top, left = top + above, left + before
    return padded[max(0, top) : top + height, max(0, left) : left + width]
