"""A few questions that the dense and the compressed model answer differently, with small pictures: for the report."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vlmc.runtime.errors import InputError, shortened
from vlmc.toolchain.data.sample import MARK, Sample
from vlmc.toolchain.evaluate.metrics import fold

USUAL = 8
"""Examples that are kept of built-in data."""
SIDE, PICTURES, LONGEST = 192, 2, 300
"""The longest side of a picture in pixels, the most pictures of an example, and characters of a text."""


def disagreeing(dense: Sequence[str], compressed: Sequence[str]) -> int:
    """Return how many answers differ."""
    return sum(fold(one) != fold(other) for one, other in zip(dense, compressed, strict=True))


def differing(
    samples: Sequence[Sample], dense: Sequence[str], compressed: Sequence[str], count: int
) -> list[dict[str, Any]]:
    """Return up to `count` questions with different answers: first what was right and is not, of each kind in turn.

    Each has its kind, question, expected answer, both answers, and JPEG pictures in base64. One whose image cannot be read
    has none.
    """
    places = [number for number in range(len(dense)) if fold(dense[number]) != fold(compressed[number])]
    seen: Counter[tuple[bool, str]] = Counter()
    order: dict[int, tuple[bool, int]] = {}
    for number in places:
        mended = fold(dense[number]) != fold(samples[number].answer)
        kind = (mended, samples[number].kind)
        order[number] = (mended, seen[kind])
        seen[kind] += 1
    chosen = sorted(places, key=lambda number: (*order[number], number))[:count]
    return [_example(samples[number], dense[number], compressed[number]) for number in chosen]


def _example(sample: Sample, dense: str, compressed: str) -> dict[str, Any]:
    question = " ".join(sample.question.replace(MARK, " ").split())
    texts = {"kind": sample.kind, "question": question, "expected": sample.answer, "dense": dense, "compressed": compressed}
    return {name: shortened(text, LONGEST) for name, text in texts.items()} | {"images": _pictures(sample)}


def _pictures(sample: Sample) -> list[str]:
    try:
        return [_small(image) for image in sample.load_images()[:PICTURES]]
    except InputError:
        return []


def _small(image: Image.Image) -> str:
    """Return an image as a JPEG of at most SIDE pixels, in base64."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    target = io.BytesIO()
    small.save(target, "JPEG", quality=85)
    return base64.b64encode(target.getvalue()).decode("ascii")
