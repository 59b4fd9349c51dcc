"""Where alignment starts: image tokens that are the language model's own embeddings of the words for what is there.

Shapes: V words of the vocabulary, L width of the language model, B scenes, I image tokens, D width of the merged patches.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlmc.toolchain.smol.scenes import POSITIONS, WORDS, Digit, Drawn, Scene
from vlmc.toolchain.smol.vision import Vision

_RIDGE = 1.0
_AT_ONCE = 100


class Words:
    """Words as the language model embeds them."""

    def __init__(self, embedding_VL: Tensor, tokenizer: Any) -> None:
        self._embedding_VL, self._tokenizer = embedding_VL, tokenizer

    @torch.no_grad()
    def teach(self, vision: Vision, pixels_BCHW: Tensor, scenes: Sequence[Scene]) -> None:
        """Set the connector to the ridge regression from what the encoder tells of these scenes to the words for it."""
        _fit(vision, pixels_BCHW, torch.cat([self.tokens(scene) for scene in scenes]))

    def tokens(self, scene: Scene) -> Tensor:
        """Return the image tokens that would tell a scene in words, I x L, in rows of two cells.

        The upper two tokens of a cell say where it is, the lower two what is there: the name's first token and its second,
        or colour and value of a digit.
        """
        rows = []
        for left, right in ((0, 1), (2, 3)):
            rows.append([self._embed(POSITIONS[cell]) for cell in (left, left, right, right)])
            rows.append([word for cell in (left, right) for word in self._named(scene.cells[cell])])
        return torch.stack([token for row in rows for token in row])

    def _named(self, thing: Drawn | Digit | None) -> tuple[Tensor, Tensor]:
        if isinstance(thing, Digit):
            return self._embed(thing.colour), self._embed(WORDS[thing.value])
        ids = self._ids("nothing" if thing is None else thing.name)
        return self._embedding_VL[ids[0]], self._embedding_VL[ids[min(1, len(ids) - 1)]]

    def _embed(self, words: str) -> Tensor:
        """Return words in one token: the sum of their embeddings, as long as one of them."""
        ids = self._ids(words)
        return self._embedding_VL[ids].sum(0) / math.sqrt(len(ids))

    def _ids(self, words: str) -> list[int]:
        return list(self._tokenizer(f" {words}", add_special_tokens=False)["input_ids"])


@torch.no_grad()
def follow(vision: Vision, former: Vision, pixels_BCHW: Tensor) -> None:
    """Set the connector to the ridge regression from what the encoder tells now to the image tokens there were before."""
    _fit(vision, pixels_BCHW, torch.cat([former(part).flatten(0, 1) for part in torch.split(pixels_BCHW, _AT_ONCE)]))


def _fit(vision: Vision, pixels_BCHW: Tensor, wanted_ML: Tensor) -> None:
    seen_MD = torch.cat([vision.seen(part) for part in torch.split(pixels_BCHW, _AT_ONCE)]).flatten(0, 1).double()
    ridge_DD = seen_MD.T @ seen_MD + _RIDGE * torch.eye(seen_MD.shape[1], dtype=torch.float64)
    weight_DL = torch.linalg.solve(ridge_DD, seen_MD.T @ wanted_ML.double())
    vision.connector.modality_projection.proj.weight.copy_(weight_DL.T)
