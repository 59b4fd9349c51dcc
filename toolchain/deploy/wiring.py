"""Wiring: what a family says of how it is deployed. The rest is found in the model, its processor and its graphs."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from vlmc.runtime.deployment import Patches, Tiles


@dataclass(frozen=True)
class Wiring:
    """The modules that become graphs, and how they are fed.

    `vision` gives the image features from inputs named as its arguments: those that the processor makes, or that the runtime
    adds for patches. `head` gives logits from the language model's last hidden state; None: it gives logits itself.
    `constant`: every image takes the same number of tokens, so the numpy pipeline may serve where it knows the image
    processor's steps. `place` and `max_images` are as in `deployment.json`.
    """

    vision: nn.Module
    language: nn.Module
    head: nn.Module | None
    layout: Tiles | Patches = field(default_factory=Tiles)
    constant: bool = False
    place: Literal["inline", "front"] = "inline"
    max_images: int | None = None
    positions: Literal["sequential", "m-rope"] = "sequential"
