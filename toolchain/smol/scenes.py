"""Scenes: two to four emoji and coloured handwritten digits in a 2 x 2 grid, on backgrounds of five kinds.

Everything is drawn from a `random.Random` and painted in integers, so a seed gives the same pixels everywhere.
Shapes: N samples of handwriting, H x W pixels, C = 3 colours.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmc.toolchain.demo import glyphs
from vlmc.toolchain.demo.scenes import COLOURS, INKS, POSITIONS, RGB, SIDE, WORDS
from vlmc.toolchain.smol.backgrounds import Background, draw_background, paint_background
from vlmc.toolchain.smol.emoji import EMOJI, sprite

_CELL = SIDE // 2
_SIDES = range(20, _CELL)
_PRESENT = (2, 3, 3, 4, 4, 4)
_DIGITS = 0.35
_AGAIN = 0.12

_BUCKETS: dict[glyphs.Split, range] = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}


@dataclass(frozen=True)
class Placed:
    """Something that lies in a cell: its side in pixels and where its corner lies in the cell."""

    side: int
    left: int
    top: int


@dataclass(frozen=True)
class Drawn(Placed):
    """An emoji, by its place in `EMOJI`."""

    number: int

    @property
    def name(self) -> str:
        """What it is called: "dog"."""
        return EMOJI[self.number].name

    @property
    def phrase(self) -> str:
        """Its name with an article: "a dog", "some grapes"."""
        return EMOJI[self.number].phrase

    @property
    def verb(self) -> str:
        """The verb that goes with its name: "is" or "are"."""
        return "are" if EMOJI[self.number].several else "is"


@dataclass(frozen=True)
class Digit(Placed):
    """A handwritten digit: what it is, its colour, whose handwriting, its ink."""

    value: int
    colour: str
    sample: int
    ink: RGB
    verb = "is"

    @property
    def name(self) -> str:
        """What it is called: "red seven"."""
        return f"{self.colour} {WORDS[self.value]}"

    @property
    def phrase(self) -> str:
        """Its name with an article: "an orange seven"."""
        return f"a {self.name}"


@dataclass(frozen=True)
class Scene:
    """Four cells, each with something or empty, and the background."""

    cells: tuple[Drawn | Digit | None, ...]
    background: Background

    def things(self) -> Iterator[tuple[int, Drawn | Digit]]:
        """Yield every cell that holds something, and what it holds."""
        return ((cell, thing) for cell, thing in enumerate(self.cells) if thing is not None)

    def digits(self) -> list[tuple[int, Digit]]:
        """Return every cell that holds a digit, and the digit."""
        return [(cell, thing) for cell, thing in self.things() if isinstance(thing, Digit)]

    @property
    def split(self) -> glyphs.Split:
        """The only split that may show these things in these places: 80 % train, 10 % validation, 10 % test."""
        content = "|".join("" if thing is None else thing.name for thing in self.cells)
        bucket = hashlib.sha256(content.encode()).digest()[0] % 10
        return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


def draw_scene(random: Random, split: glyphs.Split) -> Scene:
    """Draw a scene that belongs to one split, with the handwriting of that split."""
    while True:
        present = random.sample(range(4), random.choice(_PRESENT))
        things: list[Drawn | Digit] = []
        for _ in present:
            things.append(_draw_thing(random, split, things))
        cells = tuple(things[present.index(cell)] if cell in present else None for cell in range(4))
        scene = Scene(cells, draw_background(random))
        if scene.split == split:
            return scene


def _draw_thing(random: Random, split: glyphs.Split, before: list[Drawn | Digit]) -> Drawn | Digit:
    """Draw one thing; now and then the same emoji, or a digit of the same colour, as one before it."""
    side = random.choice(_SIDES)
    left, top = random.randint(0, _CELL - side), random.randint(0, _CELL - side)
    again = random.choice(before) if before and random.random() < _AGAIN else None
    if isinstance(again, Drawn):
        return Drawn(side, left, top, again.number)
    if again is None and random.random() >= _DIGITS:
        return Drawn(side, left, top, random.randrange(len(EMOJI)))
    value, colour = random.randrange(10), random.choice(COLOURS) if again is None else again.colour
    red, green, blue = (max(0, min(255, level + random.randint(-15, 15))) for level in INKS[colour])
    sample = random.choice(glyphs.split_by_digit(split)[value])
    return Digit(side, left, top, value, colour, sample, (red, green, blue))


def paint(scene: Scene, coverage_NHW: npt.NDArray[np.integer] | None = None) -> Image.Image:
    """Return the image of a scene, 64 x 64 in RGB; `coverage_NHW` replaces the handwriting, as augmentation does."""
    coverage_NHW = glyphs.coverage_NHW() if coverage_NHW is None else coverage_NHW
    image = paint_background(scene.background, SIDE)
    for cell, thing in scene.things():
        corner = cell % 2 * _CELL + thing.left, cell // 2 * _CELL + thing.top
        if isinstance(thing, Drawn):
            stamp = sprite(thing.number, thing.side)
            image.paste(stamp, corner, stamp)
        else:
            cover_HW = (coverage_NHW[thing.sample].astype(np.int32) * 255 // glyphs.FULL).astype(np.uint8)
            size = thing.side, thing.side
            image.paste(thing.ink, corner, Image.fromarray(cover_HW).resize(size, Image.Resampling.BICUBIC))
    return image


__all__ = ["COLOURS", "POSITIONS", "SIDE", "WORDS", "Digit", "Drawn", "Scene", "draw_scene", "paint"]
