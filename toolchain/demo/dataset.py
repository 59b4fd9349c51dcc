"""The demo's data set: `samples(split)` draws it, `write(directory, split)` puts it on disk in LLaVA's form.

By default 2,000 samples for test and 1,000 for validation, of every kind but captions, and 20,000 for train, captions
included. No handwriting occurs in two splits.
"""

from random import Random

from PIL import Image

from vlmc.toolchain.demo.drawn import DrawnSet
from vlmc.toolchain.demo.glyphs import Split
from vlmc.toolchain.demo.questions import CAPTION, KINDS, Asked, ask
from vlmc.toolchain.demo.scenes import Scene, draw_scene, picture


def draw_asked(split: Split, kind: str, number: int) -> tuple[Scene, Asked]:
    """Draw the `number`-th scene and question of one kind, again and again until the scene offers such a question."""
    random = Random(f"vlmc demo {split} {kind} {number}")
    while True:
        scene = draw_scene(random, split)
        asked = ask(kind, scene, random)
        if asked is not None:
            return scene, asked


def _draw(split: Split, kind: str, number: int) -> tuple[Image.Image, str, str]:
    scene, (question, answer) = draw_asked(split, kind, number)
    return picture(scene), question, answer


DEMO = DrawnSet(
    name="the demo",
    draw=_draw,
    kinds=(*KINDS, CAPTION),
    asked={"train": (*KINDS, CAPTION), "validation": KINDS, "test": KINDS},
    counts={"train": 20_000, "validation": 1_000, "test": 2_000},
)

samples, write = DEMO.samples, DEMO.write
