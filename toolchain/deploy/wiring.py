"""Wiring: what a family declares for its deployment. The rest is read from the model and its processor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from vlmc.runtime.deployment import AnyRes, Patches, Tiles


@dataclass(frozen=True)
class Wiring:
    """The modules that become graphs, and how they are fed.

    `vision` returns the image features; its arguments are named as the arrays that the processor returns, or that the
    runtime adds for patches or tiles. `head` maps the language model's last hidden state to logits; None: it returns logits
    itself. `constant`: every image takes the same number of tokens, so the numpy pipeline can be used if it has the image
    processor's steps. `place`, `max_images`, `first_position`, `prefix_mask` and `deepstack` are as in `deployment.json`.
    `encoder_decoder`: the language model is a T5. `axes` names the leading dimensions of vision inputs that have others
    than the number of tiles or patches.
    """

    vision: nn.Module
    language: nn.Module
    head: nn.Module | None
    layout: Tiles | Patches | AnyRes = field(default_factory=Tiles)
    constant: bool = False
    place: Literal["inline", "front"] = "inline"
    max_images: int | None = None
    positions: Literal["sequential", "m-rope"] = "sequential"
    first_position: int = 0
    prefix_mask: Literal[False, "prompt", "images"] = False
    deepstack: int = 0
    encoder_decoder: bool = False
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
