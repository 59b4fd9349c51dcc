"""The data set of `smol`: `samples(split)` draws it."""

from collections.abc import Sequence
from functools import partial
from random import Random

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.drawn import DrawnSamples
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo.glyphs import SPLITS, Split
from vlmc.toolchain.smol.questions import KINDS, Asked, ask
from vlmc.toolchain.smol.scenes import Scene, draw_scene, paint

COUNTS: dict[Split, int] = {"train": 20_000, "validation": 1_000, "test": 2_000}
"""The usual number of samples of a split."""

MOST = 1_000_000
_DRAWN = 7  # samples to draw for a digest: all others are drawn in the same way


def samples(split: Split = "test", count: int | None = None, kinds: Sequence[str] = KINDS) -> Sequence[Sample]:
    """Return questions about scenes, balanced by kind: index i has kind `kinds[i % len(kinds)]`.

    By default 2,000 for test, 1,000 for validation and 20,000 for train. No scene and no handwriting occurs in two
    splits; half of the questions of validation and test are worded as those of no other split are.

    Raises:
        InputError: there is no such split or kind, or the count is negative.
    """
    if split not in SPLITS:
        raise InputError(f"smol has no split {split!r}: use one of {', '.join(SPLITS)}")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InputError(f"smol has no kind {', '.join(unknown) or '(none given)'}: use {', '.join(KINDS)}")
    if count is not None and not 0 <= count <= MOST:
        raise InputError(f"smol cannot draw {count} samples: give a count of 0 or more, and at most {MOST:,}")
    length = COUNTS[split] if count is None else count
    return DrawnSamples(split, length, tuple(kinds), partial(_draw, split), _DRAWN)


def _draw(split: Split, kind: str, number: int) -> Sample:
    scene, (question, answer) = draw_asked(split, kind, number)
    return Sample(f"{split}-{kind}-{number:05d}", (paint(scene),), question, answer, kind)


def draw_asked(split: Split, kind: str, number: int) -> tuple[Scene, Asked]:
    """Draw the `number`-th scene and question of one kind, repeatedly until the scene allows such a question."""
    random = Random(f"vlmc smol {split} {kind} {number}")
    while True:
        scene = draw_scene(random, split)
        asked = ask(kind, scene, random, split)
        if asked is not None:
            return scene, asked
