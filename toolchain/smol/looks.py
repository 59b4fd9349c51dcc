"""What the vision encoder is shown in training: painted scenes, what is in each of their cells, and how many there are.

Shapes: B scenes, C colours, H x W pixels, K cells, N counts, V variants of handwriting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmc.toolchain.smol.emoji import EMOJI
from vlmc.toolchain.smol.questions import totals
from vlmc.toolchain.smol.scenes import COLOURS, Digit, Drawn, Scene, draw_scene, paint

EMPTY = len(EMOJI) + 10
"""What an empty cell is called among the things: emoji come first, then the ten digits."""

COLOURLESS = len(COLOURS)
"""What a cell without a digit is called among the colours."""

COUNTED = 3 + len(COLOURS)
"""How many things can be counted in a scene: things, digits, animals, and the digits of each colour."""


@dataclass(frozen=True)
class Look:
    """Images, what is in each of their cells, and how many there are of all that can be counted."""

    pixels_BCHW: Tensor
    thing_BK: Tensor
    colour_BK: Tensor
    count_BN: Tensor


def look(scenes: Sequence[Scene], coverages: Sequence[npt.NDArray[np.integer] | None]) -> Look:
    """Paint scenes, each with its own handwriting."""
    images = [np.asarray(paint(scene, coverage)) for scene, coverage in zip(scenes, coverages, strict=True)]
    return Look(
        pixels(images),
        torch.tensor([[_thing(thing) for thing in scene.cells] for scene in scenes]),
        torch.tensor([[_colour(thing) for thing in scene.cells] for scene in scenes]),
        torch.tensor([list(totals(scene).values()) for scene in scenes]),
    )


def training_look(random: Random, count: int, coverage_VNHW: npt.NDArray[np.int16]) -> tuple[Look, list[Scene]]:
    """Draw training scenes, in handwriting warped in the V ways of `coverage_VNHW`."""
    scenes = [draw_scene(random, "train") for _ in range(count)]
    return look(scenes, [random.choice(coverage_VNHW) for _ in scenes]), scenes


def pixels(images_BHWC: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    """Return images as the vision encoder takes them, between -1 and 1."""
    return torch.from_numpy(np.stack(images_BHWC)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def _thing(thing: Drawn | Digit | None) -> int:
    if thing is None:
        return EMPTY
    return thing.number if isinstance(thing, Drawn) else len(EMOJI) + thing.value


def _colour(thing: Drawn | Digit | None) -> int:
    return COLOURS.index(thing.colour) if isinstance(thing, Digit) else COLOURLESS
