"""Wiring: what a family declares for its deployment. The rest is read from the model and its processor."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from vlmc.runtime.deployment import Patches, Tiles


@dataclass(frozen=True)
class Wiring:
    """The modules that become graphs, and how they are fed.

    `vision` returns the image features; its arguments are named as the arrays that the processor returns, or that the
    runtime adds for patches. `head` maps the language model's last hidden state to logits; None: it returns logits itself.
    `constant`: every image takes the same number of tokens, so the numpy pipeline can be used if it has the image
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
