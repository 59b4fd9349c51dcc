"""The first stage of training `smol`: the vision encoder alone learns to name what is in each cell, and how many there are.

Shapes: B scenes, C colours, H x W pixels, I image tokens, D width of the merged patches, K cells, N counts.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.toolchain.smol.architecture import PATCH, ROW, TOKENS
from vlmc.toolchain.smol.emoji import EMOJI
from vlmc.toolchain.smol.looks import COLOURLESS, COUNTED, EMPTY, Look

CELL_I = torch.tensor([place // ROW * 2 // ROW * 2 + place % ROW * 2 // ROW for place in range(TOKENS)])
"""The cell in which each image token lies."""

_FAINT = 0.01
"""The variance, of pixels between -1 and 1, below which a component is not made stronger."""

_DIGIT = 3.0
"""How much more a digit counts than an emoji: each emoji is drawn one way, a digit by many hands."""

_SMOOTH = 0.05
_COUNTS = 0.3


class Vision(nn.Module):
    """The two parts of `smol` that are trained: vision encoder and connector."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.connector = model.model.vision_model, model.model.connector
        self.width: int = self.connector.modality_projection.proj.in_features

    def seen(self, pixels_BCHW: Tensor) -> Tensor:
        """Return the merged patches that the connector reads, B x I x D."""
        patches_BPD = self.encoder(pixels_BCHW).last_hidden_state
        merged_BID: Tensor = self.connector.pixel_shuffle(patches_BPD, self.connector.scale_factor)
        return merged_BID

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return the image tokens, B x I x width of the language model."""
        tokens_BIL: Tensor = self.connector.modality_projection(self.seen(pixels_BCHW))
        return tokens_BIL


@torch.no_grad()
def whiten(vision: Vision, pixels_BCHW: Tensor) -> None:
    """Start the patch embedding as the principal components of these images' patches, each made equally strong.

    An encoder that starts so learns several times faster than from random patterns.
    """
    embedding = vision.encoder.embeddings.patch_embedding
    patches_MP = functional.unfold(pixels_BCHW, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1).double()
    variance_P, pattern_PP = torch.linalg.eigh(torch.cov(patches_MP.T))
    weight_PP = (pattern_PP / (variance_P + _FAINT).sqrt()).T[-embedding.out_channels :]
    embedding.weight[: len(weight_PP)] = weight_PP.unflatten(1, embedding.weight.shape[1:]).float()
    embedding.bias[: len(weight_PP)] = -(weight_PP @ patches_MP.mean(0)).float()


class Naming(nn.Module):
    """Linear readings of every image token: the thing in its cell, its colour, and what there is to count in the scene."""

    weight_N: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.thing, self.colour = nn.Linear(width, EMPTY + 1), nn.Linear(width, COLOURLESS + 1)
        self.counts = nn.Linear(width, COUNTED * 5)
        weight_N = torch.ones(EMPTY + 1)
        weight_N[len(EMOJI) : EMPTY] = _DIGIT
        self.register_buffer("weight_N", weight_N, persistent=False)

    def forward(self, seen_BID: Tensor, look: Look) -> Tensor:
        """Return the sum of all losses of a batch."""
        counts_BIN5 = self.counts(seen_BID).unflatten(-1, (COUNTED, 5))
        return (
            _entropy(self.thing(seen_BID), look.thing_BK[:, CELL_I], self.weight_N)
            + _entropy(self.colour(seen_BID), look.colour_BK[:, CELL_I])
            + _COUNTS * _entropy(counts_BIN5, look.count_BN[:, None].expand(-1, TOKENS, -1))
        )

    @torch.no_grad()
    def score(self, seen_BID: Tensor, look: Look) -> dict[str, float]:
        """Return the shares of cells whose emoji, digit and colour are told right, and of counts."""
        cell_BKI = functional.one_hot(CELL_I).T.float()
        right_BK = (cell_BKI @ self.thing(seen_BID).log_softmax(-1)).argmax(-1) == look.thing_BK
        coloured_BK = (cell_BKI @ self.colour(seen_BID).log_softmax(-1)).argmax(-1) == look.colour_BK
        counted_BN = self.counts(seen_BID).unflatten(-1, (COUNTED, 5)).log_softmax(-1).sum(1).argmax(-1) == look.count_BN
        emoji_BK, digit_BK = look.thing_BK < len(EMOJI), look.colour_BK < COLOURLESS
        parts = {
            "emoji": right_BK[emoji_BK],
            "digit": right_BK[digit_BK],
            "colour": coloured_BK[digit_BK],
            "counts": counted_BN,
        }
        return {name: part.float().mean().item() for name, part in parts.items()}


def _entropy(logits: Tensor, target: Tensor, weight_N: Tensor | None = None) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2).float(), target.flatten(), weight_N, label_smoothing=_SMOOTH)
