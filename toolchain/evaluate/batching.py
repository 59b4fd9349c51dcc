"""Batches of questions: bounded in memory, with the same answers as one by one.

A decoder continues at the end of its input, so its shorter questions are padded on the left, under the attention mask; an
encoder's are padded on the right. Shapes: T tokens of a question.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from vlmc.toolchain.data.encode import Encoded, Encoder
from vlmc.toolchain.data.sample import Sample

MAX_NEW_TOKENS = 32
BATCHES, BYTES = 4, 256 << 20
"""The most to encode at a time: batches, or bytes once they fill a batch."""

_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


class Window(NamedTuple):
    """Consecutive samples and their encoded questions."""

    samples: list[Sample]
    encoded: list[Encoded]


class Shape(NamedTuple):
    """How many tokens an answer may have, and the length of its question in tokens."""

    room: int
    length: int


def windows(samples: Sequence[Sample], encoder: Encoder, size: int) -> Iterator[Window]:
    """Yield the samples in order, as many at a time as memory allows for batches of `size`."""
    window, held = Window([], []), 0
    for sample in samples:
        window.samples.append(sample)
        window.encoded.append(encoder.question(sample))
        held += sum(tensor.nbytes for tensor in window.encoded[-1].values())
        count = len(window.samples)
        if count == BATCHES * size or (held >= BYTES and count % size == 0):
            yield window
            window, held = Window([], []), 0
    if window.samples:
        yield window


def shape(encoder: Encoder, encoded: Encoded) -> Shape:
    """Return what determines which questions may share a batch."""
    room = encoder.room(encoded)
    return Shape(MAX_NEW_TOKENS if room is None else min(MAX_NEW_TOKENS, room), int(encoded["input_ids"].shape[1]))


def batches(shapes: Sequence[Shape], size: int) -> list[list[int]]:
    """Return the indices of the questions by batch; a batch has one room and similar lengths."""
    order = sorted(range(len(shapes)), key=lambda place: shapes[place])
    groups = [list(group) for _, group in groupby(order, key=lambda place: shapes[place].room)]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def stack(encoder: Encoder, encoded: Sequence[Encoded]) -> Encoded:
    """Return one batch of questions."""
    if encoder.family.encoder_decoder:
        return encoder.collate(encoded)
    longest = max(int(item["input_ids"].shape[1]) for item in encoded)
    return encoder.collate([_grown(item, longest, encoder.pad_id) for item in encoded])


def _grown(encoded: Encoded, length: int, pad_id: int) -> Encoded:
    """Pad the tokens (1, T) on the left to that length."""
    missing = length - int(encoded["input_ids"].shape[1])
    masked = {"attention_mask": torch.ones_like(encoded["input_ids"])} | encoded
    fills = dict.fromkeys(_TOKENS, 0) | {"input_ids": pad_id}
    return masked | {name: pad(masked[name], (missing, 0), value=fills[name]) for name in _TOKENS if name in masked}
