"""Training batches: each image once, followed by several questions that attend to the image but not to each other.

Shapes: B images, T tokens, H x W pixels, C colours, K cells. The packed form gives every question the attention mask
and the positions that it has alone, so the model trains on exactly what it is evaluated on, at a third of the cost.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo import glyphs
from vlmc.toolchain.demo.questions import CAPTION, KINDS, ask
from vlmc.toolchain.demo.scenes import COLOURS, Scene, draw_scene, paint
from vlmc.toolchain.demo.vocabulary import ANSWER, BOS, EOS, PAD, VOCABULARY, encode

IGNORE = -100
_PAD, _BOS, _EOS = (VOCABULARY.index(token) for token in (PAD, BOS, EOS))
_ANSWER = encode(ANSWER)


@dataclass(frozen=True)
class Batch:
    """Packed questions about images; `segment_BT` is 0 in the prefix, then counts the questions, and -1 is padding."""

    pixels_BCHW: Tensor
    ids_BT: Tensor
    positions_BT: Tensor
    segment_BT: Tensor
    labels_BT: Tensor
    weights_BT: Tensor
    digit_BK: Tensor
    colour_BK: Tensor

    def mask(self) -> Tensor:
        """Return the attention mask, B x 1 x T x T: causal, over the prefix and the token's own question."""
        length = self.ids_BT.shape[1]
        same_BTT = self.segment_BT[:, :, None] == self.segment_BT[:, None, :]
        prefix_BTT = (self.segment_BT == 0)[:, None, :]
        causal_TT = torch.ones(length, length, dtype=torch.bool).tril()
        return ((same_BTT | prefix_BTT) & causal_TT)[:, None]


@dataclass(frozen=True)
class Recipe:
    """What a batch holds; `emphasis` makes some kinds of question that many times as likely."""

    prefix: tuple[int, ...]
    images: int
    questions: int
    caption_weight: float = 0.3
    emphasis: Mapping[str, float] = field(default_factory=dict)


@dataclass
class _Row:
    ids: list[int]
    positions: list[int]
    segment: list[int]
    labels: list[int]
    weights: list[float]


def batches(recipe: Recipe, seed: str, coverage_VNHW: npt.NDArray[np.int16]) -> Iterator[Batch]:
    """Draw batches without end from the training handwriting, warped in the V ways of `coverage_VNHW`."""
    random = Random(seed)
    while True:
        scenes = [draw_scene(random, "train") for _ in range(recipe.images)]
        pixels = np.stack([paint(scene, random.choice(coverage_VNHW)) for scene in scenes])
        yield _batch(scenes, pixels, [_row(recipe, scene, random) for scene in scenes])


def single(prefix: tuple[int, ...], asked: Sequence[Sample]) -> Batch:
    """Return samples as a batch of one question each, for evaluation."""
    rows = [_prefix_row(prefix) for _ in asked]
    for row, sample in zip(rows, asked, strict=True):
        _append(row, len(prefix), sample.question, sample.answer, weight=1.0)
    pixels_BHWC = np.stack([np.asarray(sample.load_image()) for sample in asked])
    return _batch([], pixels_BHWC, rows)


def _batch(scenes: list[Scene], pixels_BHWC: npt.NDArray[np.uint8], rows: list[_Row]) -> Batch:
    return Batch(
        pixels_BCHW=torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).float().div(127.5).sub(1.0),
        ids_BT=_padded([row.ids for row in rows], _PAD),
        positions_BT=_padded([row.positions for row in rows], 0),
        segment_BT=_padded([row.segment for row in rows], -1),
        labels_BT=_padded([row.labels for row in rows], IGNORE),
        weights_BT=_padded([row.weights for row in rows], 0.0),
        digit_BK=torch.tensor([[10 if digit is None else digit.value for digit in scene.cells] for scene in scenes]),
        colour_BK=torch.tensor(
            [[len(COLOURS) if digit is None else COLOURS.index(digit.colour) for digit in scene.cells] for scene in scenes]
        ),
    )


def _padded(rows: Sequence[Sequence[float]], fill: float) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])


def _prefix_row(prefix: tuple[int, ...]) -> _Row:
    start = len(prefix)
    return _Row(list(prefix), list(range(start)), [0] * start, [IGNORE] * start, [0.0] * start)


def _row(recipe: Recipe, scene: Scene, random: Random) -> _Row:
    row = _prefix_row(recipe.prefix)
    kinds = random.choices(KINDS, weights=[recipe.emphasis.get(kind, 1.0) for kind in KINDS], k=recipe.questions)
    for kind in [CAPTION, *kinds] if recipe.caption_weight else kinds:
        asked = ask(kind, scene, random)
        if asked is not None:
            _append(
                row,
                len(recipe.prefix),
                *asked,
                weight=recipe.caption_weight if kind == CAPTION else 1.0,
            )
    return row


def _append(row: _Row, start: int, question: str, answer: str, weight: float) -> None:
    prompt, target = encode(question) + _ANSWER, [*encode(answer), _EOS]
    ids = prompt + target[:-1]
    row.ids += ids
    row.positions += range(start, start + len(ids))
    row.segment += [row.segment[-1] + 1] * len(ids)
    row.labels += [IGNORE] * (len(prompt) - 1) + target
    row.weights += [0.0] * (len(prompt) - 1) + [weight] * len(target)


def warped(seed: int, variants: int) -> npt.NDArray[np.int16]:
    """Return all handwriting `variants` times as `coverage_VNHW`, each time turned, stretched and slanted a little."""
    grey_NHW = glyphs.coverage_NHW().astype(np.float32)
    random = np.random.RandomState(seed)
    return np.stack([_warp(grey_NHW, random) for _ in range(variants)])


def _warp(grey_NHW: npt.NDArray[np.float32], random: np.random.RandomState) -> npt.NDArray[np.int16]:
    count, side = len(grey_NHW), grey_NHW.shape[1]
    angle, slant = random.uniform(-0.2, 0.2, count), random.uniform(-0.2, 0.2, count)
    tall, wide = random.uniform(0.9, 1.15, (2, count))
    centre = (side - 1) / 2
    y_HW, x_HW = np.mgrid[:side, :side] - centre
    y_NHW = tall[:, None, None] * (np.cos(angle)[:, None, None] * y_HW + np.sin(angle)[:, None, None] * x_HW) + centre
    x_turned = np.cos(angle)[:, None, None] * x_HW - np.sin(angle)[:, None, None] * y_HW + slant[:, None, None] * y_HW
    x_NHW = wide[:, None, None] * x_turned + centre
    return np.rint(_sample(grey_NHW, y_NHW, x_NHW)).astype(np.int16)


def _sample(
    grey_NHW: npt.NDArray[np.float32],
    y_NHW: npt.NDArray[np.float64],
    x_NHW: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Interpolate linearly at fractional positions; outside there is no ink."""
    inked = np.pad(grey_NHW, ((0, 0), (1, 1), (1, 1)))
    limit = grey_NHW.shape[1] + 0.999
    y, x = (np.clip(place + 1, 0, limit) for place in (y_NHW, x_NHW))
    top, left = y.astype(np.int64), x.astype(np.int64)
    down, right = y - top, x - left
    n = np.arange(len(grey_NHW))[:, None, None]
    upper = inked[n, top, left] * (1 - right) + inked[n, top, left + 1] * right
    lower = inked[n, top + 1, left] * (1 - right) + inked[n, top + 1, left + 1] * right
    result: npt.NDArray[np.float64] = upper * (1 - down) + lower * down
    return result
