"""Backgrounds of scenes: plain, shaded, striped, chequered or speckled, always light or dark and never colourful."""

from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

KINDS = ("plain", "shaded", "striped", "chequered", "speckled")


@dataclass(frozen=True)
class Background:
    """What a background looks like: two colours, the width of its pattern in pixels, its slope, and its noise."""

    kind: str
    first: tuple[int, int, int]
    second: tuple[int, int, int]
    width: int
    slope: tuple[int, int]
    noise: int


def draw_background(random: Random) -> Background:
    """Draw a background; its two colours differ by at most 30 of 255 steps."""
    level = random.choice((random.randint(15, 60), random.randint(185, 240)))
    first = _near(random, (level, level, level))
    slope = random.choice(((1, 0), (0, 1), (1, 1), (1, -1)))
    return Background(
        random.choice(KINDS), first, _near(random, first), random.randint(3, 12), slope, random.getrandbits(32)
    )


def _near(random: Random, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, level + random.randint(-15, 15))) for level in colour)
    return red, green, blue


def paint_background(background: Background, side: int) -> Image.Image:
    """Return a background of `side` x `side` pixels in RGB."""
    first_C, second_C = (np.array(colour, dtype=np.int32) for colour in (background.first, background.second))
    share_HW1 = _share(background, side)[:, :, None]
    pixels_HWC = (first_C * (256 - share_HW1) + second_C * share_HW1) // 256
    return Image.fromarray(pixels_HWC.astype(np.uint8))


def _share(background: Background, side: int) -> npt.NDArray[np.int32]:
    """Return how much of the second colour each pixel has, in 256ths."""
    y_HW, x_HW = np.mgrid[:side, :side].astype(np.int32)
    along_HW = background.slope[0] * x_HW + background.slope[1] * y_HW
    along_HW -= along_HW.min()
    if background.kind == "shaded":
        share_HW = along_HW * 256 // along_HW.max()
    elif background.kind == "striped":
        share_HW = along_HW // background.width % 2 * 256
    elif background.kind == "chequered":
        share_HW = (x_HW // background.width + y_HW // background.width) % 2 * 256
    elif background.kind == "speckled":
        grains = Random(background.noise).randbytes(side * side)
        share_HW = np.frombuffer(grains, dtype=np.uint8).astype(np.int32).reshape(side, side)
    else:
        share_HW = np.zeros((side, side), dtype=np.int32)
    return np.asarray(share_HW, dtype=np.int32)
