"""Probes: questions about images of coarse noise in several shapes, for any model and without a data set.

They compare two models that should be equal: before and after merging, in torch and in graphs.
"""

import numpy as np
from PIL import Image

from vlmc.toolchain.data.sample import Sample

SHAPES = ((256, 256), (384, 192), (144, 320), (96, 80))
"""Widths and heights: square, wide, tall, small. Families with tiles cut them into different numbers of tiles."""

QUESTIONS = ("what is shown ?", "describe the image", "which colours are there ?", "how many are there ?")


def image(number: int) -> Image.Image:
    """Return a blurred image of 8 x 8 blocks of noise, the same for the same number; the shapes take turns."""
    blocks = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(SHAPES[number % len(SHAPES)], Image.Resampling.BILINEAR)


def probes(count: int = 4) -> list[Sample]:
    """Return questions about one image each."""
    return [asked(f"probe-{number}", QUESTIONS[number % len(QUESTIONS)], image(number)) for number in range(count)]


def pair() -> Sample:
    """Return a question about two images of different shapes."""
    return asked("probe-pair", "what is the difference ?", image(1), image(2))


def asked(name: str, question: str, *images: Image.Image) -> Sample:
    """Return a question about images as a sample; its answer means nothing."""
    return Sample(name, images, question, "noise", "probe")
