"""Training batches: which samples a step sees follows from the seed and the step alone, so a run can resume at any step.

Shapes: B samples, T tokens, K columns of T from which some sample's answer is predicted, N answer tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor, nn

from vlmc.toolchain.data.encode import IGNORE, Encoded, Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.models.own_code import own_code

Item = TypeVar("Item")


@dataclass(frozen=True)
class Batch:
    """Encoded samples, and where their answers are."""

    inputs: Encoded
    columns_K: Tensor
    answered_BK: Tensor
    answers_N: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which a GPU copies while it computes."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return Batch(inputs, change(self.columns_K), change(self.answered_BK), change(self.answers_N))


def find_answers(encoded: Encoded, *, apart: bool = False) -> Batch:
    """Split labels from inputs; the token at T is predicted from the one before it.

    `apart`: the answers are not in `input_ids` (encoder-decoder models): the model takes the labels and shifts them itself.
    """
    if apart:
        answered_BL = encoded["labels"] != IGNORE
        return Batch(encoded, torch.arange(answered_BL.shape[1]), answered_BL, encoded["labels"][answered_BL])
    labels_BT = encoded["labels"][:, 1:]
    columns_K = (labels_BT != IGNORE).any(0).nonzero()[:, 0]
    labels_BK = labels_BT[:, columns_K]
    answered_BK = labels_BK != IGNORE
    inputs = {name: tensor for name, tensor in encoded.items() if name != "labels"}
    return Batch(inputs, columns_K, answered_BK, labels_BK[answered_BK])


def answer_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Return the logits (N, V) that predict the answers' tokens; no other column's are computed."""
    kept = {} if "labels" in batch.inputs else {"logits_to_keep": batch.columns_K}
    with own_code():
        logits_BKV: Tensor = model(**batch.inputs, use_cache=False, **kept).logits
    return logits_BKV[batch.answered_BK]


def split(items: Sequence[Item], parts: int) -> list[Sequence[Item]]:
    """Cut a sequence into neighbouring parts whose lengths differ by one at most."""
    bounds = [len(items) * part // parts for part in range(parts + 1)]
    return [items[start:stop] for start, stop in pairwise(bounds)]


class SampleCache:
    """Encoded samples by their places in the data, up to `room` bytes; several threads may use it."""

    def __init__(self, room: int = 0) -> None:
        self.room, self.bytes = room, 0
        self._kept: dict[int, Encoded] = {}
        self._lock = Lock()

    def get(self, index: int) -> Encoded | None:
        """Return a sample, None where it is not kept."""
        return self._kept.get(index)

    def put(self, index: int, encoded: Encoded) -> None:
        """Keep a sample where there is room for it."""
        size = sum(tensor.nbytes for tensor in encoded.values())
        with self._lock:
            if index not in self._kept and self.bytes + size <= self.room:
                self._kept[index] = encoded
                self.bytes += size


class Batches:
    """The batches of every step, in an order that is shuffled for each epoch."""

    def __init__(
        self, samples: Sequence[Sample], encoder: Encoder, size: int, seed: int, cache: SampleCache | None = None
    ) -> None:
        self.samples, self.encoder, self.size, self.seed = samples, encoder, size, seed
        self.cache = cache or SampleCache()
        self._order: tuple[int, list[int]] = (-1, [])

    def copy(self) -> "Batches":
        """Return the same batches for another thread, with the same cache.

        Open files, tokenizers and the list of bad images are not made for several threads, so each has its own.
        """
        return Batches(deepcopy(self.samples), deepcopy(self.encoder), self.size, self.seed, self.cache)

    def at(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        return self.of(self.indices(step))

    def of(self, indices: Sequence[int]) -> Batch:
        """Return the batch of these samples."""
        return self.stack([self.encode(index) for index in indices])

    def indices(self, step: int) -> list[int]:
        """Return which samples the step sees; an epoch that ends inside a batch is followed by the next."""
        places = range(step * self.size, (step + 1) * self.size)
        return [self._epoch(place // len(self.samples))[place % len(self.samples)] for place in places]

    def encode(self, index: int) -> Encoded:
        """Return one sample, encoded.

        Raises:
            InputError: it cannot be encoded, or has more tokens than the model takes.
        """
        if (kept := self.cache.get(index)) is not None:
            return kept
        encoded = self.encoder.answered(self.samples[index])
        self.cache.put(index, encoded)
        return encoded

    def stack(self, encoded: Sequence[Encoded]) -> Batch:
        """Return the batch of samples that are encoded."""
        return find_answers(self.encoder.collate(encoded), apart=self.encoder.family.encoder_decoder)

    def _epoch(self, number: int) -> list[int]:
        if self._order[0] != number:
            order = list(range(len(self.samples)))
            Random(f"vlmc repair {self.seed} {number}").shuffle(order)
            self._order = (number, order)
        return self._order[1]
