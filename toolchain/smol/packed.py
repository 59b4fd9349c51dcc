"""Packed questions: an image once, followed by several questions that attend to it but not to each other.

Shapes: B rows, T tokens. The packed form gives every question the attention mask and the positions that it has alone, so
the model trains on exactly what it is asked later, at a fraction of the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

IGNORE = -100


@dataclass
class Row:
    """A prefix of tokens and the questions after it."""

    prefix: tuple[int, ...]
    ids: list[int] = field(init=False)
    positions: list[int] = field(init=False)
    segment: list[int] = field(init=False)
    labels: list[int] = field(init=False)
    weights: list[float] = field(init=False)

    def __post_init__(self) -> None:
        start = len(self.prefix)
        self.ids, self.positions = list(self.prefix), list(range(start))
        self.segment, self.labels, self.weights = [0] * start, [IGNORE] * start, [0.0] * start

    def append(self, prompt: Sequence[int], target: Sequence[int]) -> None:
        """Add a question, whose first token follows the prefix, and its answer, whose tokens are to be predicted.

        A long answer weighs more than a short one, but less than in proportion.
        """
        start, ids = len(self.prefix), [*prompt, *target[:-1]]
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.segment += [self.segment[-1] + 1] * len(ids)
        self.labels += [IGNORE] * (len(prompt) - 1) + list(target)
        self.weights += [0.0] * (len(prompt) - 1) + [len(target) ** -0.5] * len(target)


@dataclass(frozen=True)
class Packed:
    """Rows as tensors; `segment_BT` is 0 in the prefix, then counts the questions, and -1 is padding."""

    ids_BT: Tensor
    positions_BT: Tensor
    segment_BT: Tensor
    labels_BT: Tensor
    weights_BT: Tensor

    def mask(self) -> Tensor:
        """Return which tokens attend to which, B x 1 x T x T: causal, over the prefix and the token's own question."""
        length = self.ids_BT.shape[1]
        same_BTT = self.segment_BT[:, :, None] == self.segment_BT[:, None, :]
        prefix_BTT = (self.segment_BT == 0)[:, None, :]
        causal_TT = torch.ones(length, length, dtype=torch.bool).tril()
        return ((same_BTT | prefix_BTT) & causal_TT)[:, None]


def pack(rows: Sequence[Row], pad: int) -> Packed:
    """Return rows as tensors, padded on the right."""
    return Packed(
        ids_BT=_padded([row.ids for row in rows], pad),
        positions_BT=_padded([row.positions for row in rows], 0),
        segment_BT=_padded([row.segment for row in rows], -1),
        labels_BT=_padded([row.labels for row in rows], IGNORE),
        weights_BT=_padded([row.weights for row in rows], 0.0),
    )


def _padded(rows: Sequence[Sequence[float]], fill: float) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])
