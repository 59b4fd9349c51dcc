"""Training batches of `smol`: scenes, several questions about each in one row, and what lies in each cell.

Shapes: B scenes, T tokens, H x W pixels, C colours, K cells.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo.packed import Packed, Row, pack
from vlmc.toolchain.smol.architecture import PATCHES
from vlmc.toolchain.smol.emoji import EMOJI
from vlmc.toolchain.smol.language import END, IMAGE, PAD
from vlmc.toolchain.smol.questions import KINDS, ask
from vlmc.toolchain.smol.scenes import COLOURS, Digit, Drawn, Scene, draw_scene, paint

EMPTY = len(EMOJI) + 10
"""What an empty cell is called among the things: emoji come first, then the ten digits."""

COLOURLESS = len(COLOURS)
"""What a cell without a digit is called among the colours."""

_BEFORE, _AFTER = f"<|im_start|>user\n{IMAGE * PATCHES}", f"{END}\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Look:
    """Images and what lies in each of their cells."""

    pixels_BCHW: Tensor
    thing_BK: Tensor
    colour_BK: Tensor


@dataclass(frozen=True)
class Recipe:
    """What a batch holds: so many scenes, each with as many questions as fit into a row of so many tokens.

    `emphasis` makes some kinds of question that many times as likely.
    """

    scenes: int
    tokens: int
    emphasis: Mapping[str, float] = field(default_factory=dict)


class Packer:
    """Turns questions into rows of tokens, as the processor of `smol` does with each alone."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.prefix = tuple(self._tokens(_BEFORE))
        self._end, self._pad = self._tokens(END)[0], self._tokens(PAD)[0]

    def row(self, asked: Sequence[tuple[str, str]]) -> Row:
        """Return a row of questions and answers about one image."""
        row = Row(self.prefix)
        for question, answer in asked:
            row.append(*self._texts(question, answer))
        return row

    def fill(self, scene: Scene, recipe: Recipe, random: Random) -> Row:
        """Return a row of training questions about a scene, as long as the recipe allows."""
        row, weights = Row(self.prefix), [recipe.emphasis.get(kind, 1.0) for kind in KINDS]
        while True:
            asked = ask(random.choices(KINDS, weights)[0], scene, random, "train")
            if asked is None:
                continue
            prompt, target = self._texts(*asked)
            if len(row.ids) + len(prompt) + len(target) > recipe.tokens:
                return row
            row.append(prompt, target)

    def pack(self, rows: Sequence[Row]) -> Packed:
        """Return rows as tensors."""
        return pack(rows, self._pad)

    def singles(self, samples: Sequence[Sample]) -> tuple[Packed, Tensor]:
        """Return samples as rows of one question each, and their images."""
        packed = self.pack([self.row([(sample.question, sample.answer)]) for sample in samples])
        return packed, pixels([np.asarray(sample.load_image()) for sample in samples])

    def _texts(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        return self._tokens(f"\n{question}{_AFTER}"), [*self._tokens(answer), self._end]

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def looks(seed: str, scenes: int, coverage_VNHW: npt.NDArray[np.int16]) -> Iterator[tuple[Look, list[Scene], Random]]:
    """Draw batches of training scenes for ever, in handwriting warped in the V ways of `coverage_VNHW`."""
    random = Random(seed)
    while True:
        drawn = [draw_scene(random, "train") for _ in range(scenes)]
        yield look(drawn, [random.choice(coverage_VNHW) for _ in drawn]), drawn, random


def look(drawn: Sequence[Scene], coverages: Sequence[npt.NDArray[np.integer] | None]) -> Look:
    """Paint scenes, each with its own handwriting."""
    images = [np.asarray(paint(scene, coverage)) for scene, coverage in zip(drawn, coverages, strict=True)]
    things = [[_thing(thing) for thing in scene.cells] for scene in drawn]
    colours = [[_colour(thing) for thing in scene.cells] for scene in drawn]
    return Look(pixels(images), torch.tensor(things), torch.tensor(colours))


def pixels(images_BHWC: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    """Return images as the vision tower takes them, between -1 and 1."""
    return torch.from_numpy(np.stack(images_BHWC)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def _thing(thing: Drawn | Digit | None) -> int:
    if thing is None:
        return EMPTY
    return thing.number if isinstance(thing, Drawn) else len(EMOJI) + thing.value


def _colour(thing: Drawn | Digit | None) -> int:
    return COLOURS.index(thing.colour) if isinstance(thing, Digit) else COLOURLESS
