"""Scenes: two to four coloured handwritten digits in a 2 x 2 grid, on a dark or a light background.

Everything is drawn with `random.Random`, which is the same in every Python, and painted in integers, so a seed gives the
same pixels everywhere. Shapes: H x W pixels, C = 3 colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmc.toolchain.demo import glyphs

SIDE = 64
"""Side of an image in pixels."""

POSITIONS = ("top left", "top right", "bottom left", "bottom right")
"""The four cells of the grid, in the order of `Scene.cells`."""

WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *(
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
    ),
)
"""The numbers 0 to 18 in words."""

RGB: TypeAlias = tuple[int, int, int]

INKS: dict[str, RGB] = {
    "red": (220, 30, 30),
    "green": (30, 175, 50),
    "blue": (40, 70, 225),
    "yellow": (230, 205, 30),
    "purple": (165, 40, 195),
}
"""The colours of the digits; each digit's ink is within 15 steps of these."""

COLOURS = tuple(INKS)

_CELL = SIDE // 2
_SHIFTS = range(2, _CELL - glyphs.GLYPH - 1)
_PRESENT = (2, 3, 3, 4, 4, 4)


@dataclass(frozen=True)
class Digit:
    """One digit of a scene: its value, handwriting and ink, and the position of its corner in the cell."""

    value: int
    colour: str
    sample: int
    ink: RGB
    left: int
    top: int


@dataclass(frozen=True)
class Scene:
    """Four cells, each empty or with a digit, and the background's colour."""

    cells: tuple[Digit | None, ...]
    paper: RGB

    @property
    def present(self) -> tuple[int, ...]:
        """The cells that hold a digit."""
        return tuple(cell for cell, digit in enumerate(self.cells) if digit is not None)

    def digit(self, cell: int) -> Digit:
        """Return the digit in `cell`.

        Raises:
            LookupError: the cell is empty.
        """
        digit = self.cells[cell]
        if digit is None:
            raise LookupError(f"the cell {POSITIONS[cell]} is empty")
        return digit


def draw_scene(random: Random, split: glyphs.Split) -> Scene:
    """Draw a scene with the handwriting of one split."""
    present = random.sample(range(4), random.choice(_PRESENT))
    palette = random.sample(COLOURS, random.randint(2, 5))
    cells = tuple(_draw_digit(random, split, palette) if cell in present else None for cell in range(4))
    return Scene(cells, _draw_paper(random))


def _draw_digit(random: Random, split: glyphs.Split, palette: Sequence[str]) -> Digit:
    value, colour = random.randrange(10), random.choice(palette)
    red, green, blue = (max(0, min(255, level + random.randint(-15, 15))) for level in INKS[colour])
    sample = random.choice(glyphs.split_by_digit(split)[value])
    return Digit(
        value,
        colour,
        sample,
        (red, green, blue),
        random.choice(_SHIFTS),
        random.choice(_SHIFTS),
    )


def _draw_paper(random: Random) -> RGB:
    grey = random.choice((random.randint(0, 40), random.randint(220, 255)))
    return grey, grey, grey


def paint(scene: Scene, coverage_NHW: npt.NDArray[np.int32] | None = None) -> npt.NDArray[np.uint8]:
    """Return the image of a scene as `pixels_HWC`; `coverage_NHW` replaces the handwriting, as augmentation does."""
    coverage_NHW = glyphs.coverage_NHW() if coverage_NHW is None else coverage_NHW
    paper_C = np.array(scene.paper, dtype=np.int32)
    pixels_HWC = np.broadcast_to(paper_C, (SIDE, SIDE, 3)).astype(np.uint8)
    for cell in scene.present:
        digit = scene.digit(cell)
        top, left = cell // 2 * _CELL + digit.top, cell % 2 * _CELL + digit.left
        cover_HW1 = coverage_NHW[digit.sample][:, :, None]
        blend_HWC = (paper_C * (glyphs.FULL - cover_HW1) + np.array(digit.ink, dtype=np.int32) * cover_HW1) // glyphs.FULL
        pixels_HWC[top : top + glyphs.GLYPH, left : left + glyphs.GLYPH] = blend_HWC
    return pixels_HWC


def render(scene: Scene) -> Image.Image:
    """Return the image of a scene, 64 x 64 in RGB."""
    return Image.fromarray(paint(scene))
