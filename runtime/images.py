"""From an image to the pixel values that a vision tower reads: transformers' PIL image processors, in numpy and Pillow.

Shapes: H height, W width, C channels (3), L levels (256); in between an image is `pixels_HWC`, the result is `values_NCHW`
with N = 1.
"""

import math
import struct
import zlib
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from vlmc.runtime.deployment import ImagePipeline
from vlmc.runtime.errors import InputError

LARGE = 32_000_000
"""Pixels above which an image is reduced when it is read: more than any model looks at."""
MOST_PIXELS = 128_000_000
"""Pixels that an image may have: 108-megapixel photographs are read, in less than 1 GB of memory."""
MOST_COPIED = 36_000_000
"""Pixels that it may have in a form whose decoder holds several copies of it at a time."""
MOST_ASPECT = 200
"""How many times as long one side may be as the other; resized by its shorter edge, such an image is still small."""

ImageInput = str | Path | bytes | Image.Image
"""The path of an image file, the bytes of one, or an image in Pillow."""

_STRIP = 4_000_000  # pixels that are converted at a time
_COPIED = {"WEBP", "AVIF", "JPEG2000"}
_BY_PROGRAMS = {"EPS", "WMF"}  # Pillow would start Ghostscript, or let Windows draw
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DAMAGED = (
    *(OSError, RuntimeError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(AssertionError, struct.error, zlib.error),
)
"""What Pillow's readers raise on damaged files."""


def preprocess(image: Image.Image, pipeline: ImagePipeline) -> NDArray[np.float32]:
    """Return the pixel values (1, 3, H, W) that transformers' processor gives for an image in RGB."""
    if pipeline.resize is not None:
        height, width = target_size(image.height, image.width, pipeline.resize)
        image = image.resize((width, height), resample=Image.Resampling(pipeline.resample))
    pixels_HWC: NDArray[Any] = np.asarray(image)
    if pipeline.crop is not None:
        pixels_HWC = center_crop(pixels_HWC, *pipeline.crop)
    values_NCHW = np.empty((1, 3, *pixels_HWC.shape[:2]), np.float32)
    for channel, values_L in enumerate(_of_levels(pipeline)):
        values_L.take(pixels_HWC[..., channel], out=values_NCHW[0, channel], mode="clip")
    return values_NCHW


@lru_cache
def _of_levels(pipeline: ImagePipeline) -> NDArray[np.float32]:
    """Return what becomes of each of the 256 levels of the channels, (3, 256): a pixel is looked up, not computed."""
    levels_LC: NDArray[Any] = np.arange(256)[:, None].repeat(3, 1)
    if pipeline.rescale is not None:
        levels_LC = levels_LC * pipeline.rescale
    levels_LC = levels_LC.astype(np.float32)
    if pipeline.mean is not None and pipeline.std is not None:
        levels_LC = (levels_LC - np.array(pipeline.mean, np.float32)) / np.array(pipeline.std, np.float32)
    return np.ascontiguousarray(levels_LC.T)


def open_image(given: ImageInput) -> Image.Image:
    """Return the image in RGB, turned upright by its EXIF data, with white where it is transparent.

    One of more than `LARGE` pixels is reduced first. Memory stays below 1 GB whatever the file says.

    Raises:
        InputError: there is no such file, or it is not an image, is damaged, or is larger or longer than the limits.
    """
    name = "the image" if isinstance(given, Image.Image) else _name(given)
    if isinstance(given, str | Path) and not _is_file(given):
        raise InputError(f"no image at {name}")
    try:
        if isinstance(given, Image.Image):
            _check_size(given, name)
            return to_rgb(given)
        with Image.open(BytesIO(given) if isinstance(given, bytes) else given) as opened:
            shown, turn = _read(opened, name)
        del opened  # its pixels, which are no longer needed, take as much memory as a turn of the others
        return shown if turn is None else shown.transpose(turn)
    except Image.DecompressionBombError:
        raise InputError(f"{name} is too large: the limit is {MOST_PIXELS:,} pixels; make it smaller") from None
    except _DAMAGED:
        raise InputError(f"{name} is not an image that can be read") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB, with white where the image is transparent, as in transformers since 5.23.

    It is done strip by strip. Above `LARGE` pixels a square of pixels becomes one, their mean.
    """
    width, height = image.size
    factor = math.ceil(math.sqrt(width * height / LARGE)) if width * height > LARGE else 1
    rows = factor * max(1, _STRIP // (width * factor))
    if factor == 1 and height <= rows:
        return _opaque(image)
    shown = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        strip = _opaque(image.crop((0, top, width, min(top + rows, height))))
        shown.paste(strip.reduce(factor) if factor > 1 else strip, (0, top // factor))
    return shown


def _read(image: Image.Image, name: str) -> tuple[Image.Image, Image.Transpose | None]:
    """Decode an opened image, a large JPEG at a half, a quarter or an eighth of its size; say what turns it upright."""
    if image.format in _BY_PROGRAMS:
        raise InputError(f"{name} is {image.format}, which only another program can draw: convert it to PNG or JPEG")
    _check_size(image, name)
    if image.width * image.height > LARGE:
        image.draft(None, (image.width // 2, image.height // 2))
    image.load()
    turn = _TURNS.get(_orientation(image))
    return to_rgb(image), turn


def _check_size(image: Image.Image, name: str) -> None:
    """Raise InputError, before anything is decoded, for an image that would take too much memory or has no shape."""
    width, height = image.size
    if min(width, height) < 1:
        raise InputError(f"{name} is not an image that can be read: it is {width} x {height} pixels")
    most, form = (MOST_COPIED, f" for {image.format}") if image.format in _COPIED else (MOST_PIXELS, "")
    if width * height > most:
        raise InputError(f"{name} is {width} x {height} pixels: the limit is {most:,} pixels{form}; make it smaller")
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise InputError(
            f"{name} is {width} x {height} pixels: one side may be {MOST_ASPECT} times as long as the other; crop it"
        )


def _opaque(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 0 without one, and where the EXIF data are damaged: the image may be good."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:
        return 0
    return found if isinstance(found, int) else 0


def _name(given: str | Path | bytes) -> str:
    return "the image given as bytes" if isinstance(given, bytes) else str(given)


def _is_file(path: str | Path) -> bool:
    """Whether it is a regular file: a device or a pipe may never end."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        return False


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
