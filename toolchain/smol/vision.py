"""The first stage of training `smol`: the vision tower names what lies in each cell, and the projector writes it in words.

Shapes: B scenes, C colours, H x W pixels, I image tokens, D width of the vision tower, L width of the language model,
K cells, N words.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.toolchain.demo.packed import IGNORE
from vlmc.toolchain.smol.architecture import PATCHES
from vlmc.toolchain.smol.emoji import EMOJI
from vlmc.toolchain.smol.packing import COLOURLESS, EMPTY, Look
from vlmc.toolchain.smol.scenes import COLOURS, POSITIONS, WORDS

_SHARPNESS = 16.0
"""What a cosine is multiplied with before the softmax, as in CLIP."""


class Vision(nn.Module):
    """The two parts of `smol` that are trained: vision tower and projector."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_tower, self.multi_modal_projector = model.model.vision_tower, model.model.multi_modal_projector

    def seen(self, pixels_BCHW: Tensor) -> Tensor:
        """Return the states of the patches, B x I x D."""
        states: Tensor = self.vision_tower(pixels_BCHW, output_hidden_states=True).hidden_states[-1]
        return states[:, 1:]

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return the image tokens, B x I x L."""
        tokens_BIL: Tensor = self.multi_modal_projector(self.seen(pixels_BCHW))
        return tokens_BIL


class VisionLoss(nn.Module):
    """The loss of the first stage.

    Two linear readings of the vision tower say which thing and which colour lies in each cell. And each image token is
    drawn towards the language model's own embeddings of the words for it: the thing, its colour, and its corner.
    """

    def __init__(self, width: int, embedding_VL: Tensor, tokenizer: Any) -> None:
        super().__init__()
        self.thing, self.colour = nn.Linear(width, EMPTY + 1), nn.Linear(width, COLOURLESS + 1)
        centred_VL = embedding_VL - embedding_VL.mean(0)
        self.length = float(embedding_VL.norm(dim=-1).median())
        for name, words in _WORDS.items():
            self.register_buffer(name, _prototypes(words, centred_VL, tokenizer), persistent=False)

    def forward(self, vision: Vision, look: Look) -> Tensor:
        """Return the sum of all losses of a batch."""
        seen_BID = vision.seen(look.pixels_BCHW)
        tokens_BIL = vision.multi_modal_projector(seen_BID)
        cell_BKD = _cells(seen_BID)
        loss = _entropy(self.thing(cell_BKD), look.thing_BK) + _entropy(self.colour(cell_BKD), look.colour_BK)
        corner_BI = _CELL_I.expand(len(tokens_BIL), -1)
        for name, target_BI in (
            ("things_NL", look.thing_BK[:, _CELL_I]),
            ("colours_NL", look.colour_BK.masked_fill(look.colour_BK == COLOURLESS, IGNORE)[:, _CELL_I]),
            ("corners_NL", corner_BI),
        ):
            cosine_BIN = functional.normalize(tokens_BIL.float(), dim=-1) @ getattr(self, name).T
            loss = loss + _entropy(_SHARPNESS * cosine_BIN, target_BI)
        stray: Tensor = (tokens_BIL.float().norm(dim=-1) / self.length - 1).square().mean()
        return loss + stray

    @torch.no_grad()
    def score(self, vision: Vision, look: Look) -> dict[str, float]:
        """Return the shares of cells whose emoji, digit and colour are told right."""
        seen_BID = vision.seen(look.pixels_BCHW)
        cell_BKD = _cells(seen_BID)
        right_BK = self.thing(cell_BKD).argmax(-1) == look.thing_BK
        coloured_BK = self.colour(cell_BKD).argmax(-1) == look.colour_BK
        emoji_BK, digit_BK = look.thing_BK < len(EMOJI), look.colour_BK < COLOURLESS
        parts = {"emoji": right_BK[emoji_BK], "digit": right_BK[digit_BK], "colour": coloured_BK[digit_BK]}
        return {name: part.float().mean().item() for name, part in parts.items()}


_SIDE = int(PATCHES**0.5)
_CELL_I = torch.tensor([place // _SIDE * 2 // _SIDE * 2 + place % _SIDE * 2 // _SIDE for place in range(PATCHES)])
"""The cell in which each image token lies."""

_WORDS: dict[str, Sequence[str]] = {
    "things_NL": (*(emoji.name for emoji in EMOJI), *WORDS[:10], "nothing"),
    "colours_NL": COLOURS,
    "corners_NL": POSITIONS,
}


def _cells(seen_BID: Tensor) -> Tensor:
    """Return the mean of each cell's patches, B x K x D."""
    return torch.stack([seen_BID[:, torch.eq(_CELL_I, cell)].mean(1) for cell in range(4)], 1)


def _prototypes(words: Sequence[str], centred_VL: Tensor, tokenizer: Any) -> Tensor:
    """Return the direction of each word: the mean over its tokens' embeddings, of length 1."""
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    return functional.normalize(torch.stack([centred_VL[one].mean(0) for one in ids]), dim=-1)


def _entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of the targets that are not `IGNORE`; zero where all are."""
    total = functional.cross_entropy(logits.flatten(0, -2).float(), target.flatten(), reduction="sum")
    return total / (target != IGNORE).sum().clamp(min=1)
