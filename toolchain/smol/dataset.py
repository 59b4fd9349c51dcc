"""The data set of `smol`: `samples(split)` draws it, `write(directory, split)` puts it on disk in LLaVA's form.

By default 2,000 samples for test, 1,000 for validation and 20,000 for train, of every kind. No scene and no handwriting
occurs in two splits; half of the questions of validation and test are worded as those of no other split are.
"""

from random import Random

from PIL import Image

from vlmc.toolchain.demo.drawn import DrawnSet
from vlmc.toolchain.demo.glyphs import Split
from vlmc.toolchain.smol.questions import KINDS, Asked, ask
from vlmc.toolchain.smol.scenes import Scene, draw_scene, paint


def draw_asked(split: Split, kind: str, number: int) -> tuple[Scene, Asked]:
    """Draw the `number`-th scene and question of one kind, again and again until the scene offers such a question."""
    random = Random(f"vlmc smol {split} {kind} {number}")
    while True:
        scene = draw_scene(random, split)
        asked = ask(kind, scene, random, split)
        if asked is not None:
            return scene, asked


def _draw(split: Split, kind: str, number: int) -> tuple[Image.Image, str, str]:
    scene, (question, answer) = draw_asked(split, kind, number)
    return paint(scene), question, answer


SMOL = DrawnSet(
    name="smol",
    draw=_draw,
    kinds=KINDS,
    asked={"train": KINDS, "validation": KINDS, "test": KINDS},
    counts={"train": 20_000, "validation": 1_000, "test": 2_000},
)

samples, write = SMOL.samples, SMOL.write
