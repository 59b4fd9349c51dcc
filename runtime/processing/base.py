"""Processing: what goes in and what comes out.

Shapes: B requests, S tokens of the longest request, X tiles or patches of all images.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]


@dataclass(frozen=True)
class Request:
    """The model's whole input as text, with a slot for each of its images, which are in RGB."""

    text: str
    images: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What the graphs are fed for a batch of requests; rows are padded on the right.

    `mask_BS` is 1 for a row's own tokens. `positions` is (B, S), or (3, B, S) for M-RoPE. `vision` has the vision encoder's
    inputs by name, (X, ...) over all images in the order of their requests; empty if there are no images. `extras` are
    further arrays (B, ...) that a graph may declare.
    """

    ids_BS: Array
    mask_BS: Array
    positions: Array
    vision: Mapping[str, Array] = field(default_factory=dict)
    extras: Mapping[str, Array] = field(default_factory=dict)

    @property
    def lengths_B(self) -> Array:
        """How many tokens each request has."""
        lengths: Array = self.mask_BS.sum(1)
        return lengths


class Processing(ABC):
    """Turns requests into what the graphs are fed; keeps no state, so threads may share it."""

    @abstractmethod
    def __call__(self, requests: Sequence[Request]) -> Batch:
        """Return the arrays for a batch of requests.

        Raises:
            InputError: a request's text has more or fewer slots than there are images.
        """


def pad(rows: Sequence[Sequence[int]], fill: int) -> tuple[Array, Array]:
    """Return ids (B, S), padded on the right, and their mask (B, S)."""
    longest = max(len(row) for row in rows)
    ids_BS = np.full((len(rows), longest), fill, np.int64)
    mask_BS = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids_BS[index, : len(row)], mask_BS[index, : len(row)] = row, 1
    return ids_BS, mask_BS
