"""Batches of questions: how much is held at a time, and which questions share one."""

from collections.abc import Iterator

import pytest
import torch

from tests import pico
from vlmc.toolchain.data.encode import Encoded
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate import batching
from vlmc.toolchain.evaluate.batching import Shape, batches, windows


class Counting:
    """An encoder that counts what it encodes."""

    def __init__(self) -> None:
        self.done = 0

    def question(self, sample: Sample) -> Encoded:
        self.done += 1
        return {"input_ids": torch.ones(1, 4, dtype=torch.long), "pixel_values": torch.zeros(1, 3, 8, 8)}


def opened(count: int, size: int) -> tuple[Counting, Iterator[batching.Window]]:
    encoder = Counting()
    samples = [Sample(f"s{number}", (pico.picture(0),), "what ?", "seven", "kind") for number in range(count)]
    return encoder, windows(samples, encoder, size)  # type: ignore[arg-type]


def test_a_few_batches_are_encoded_at_a_time_and_every_sample_once() -> None:
    encoder, found = opened(21, 2)
    first = next(found)
    assert encoder.done == len(first.encoded) == 2 * batching.BATCHES
    names = [sample.id for window in (first, *found) for sample in window.samples]
    assert names == [f"s{number}" for number in range(21)]


def test_large_images_make_it_one_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BYTES", 500)
    _, found = opened(7, 3)
    assert [len(window.samples) for window in found] == [3, 3, 1]


def test_questions_share_a_batch_by_length_and_only_with_the_same_room() -> None:
    shapes = [Shape(32, 9), Shape(30, 18), Shape(32, 5), Shape(32, 7), Shape(30, 18)]
    assert batches(shapes, 2) == [[1, 4], [2, 3], [0]]
