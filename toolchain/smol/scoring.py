"""Accuracy of `smol`, kind by kind: an answer counts when greedy decoding gives exactly it."""

from collections.abc import Sequence
from typing import Any

import torch

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo.scoring import agreements, shares
from vlmc.toolchain.smol.learning import last_states
from vlmc.toolchain.smol.packing import Packer
from vlmc.toolchain.smol.vision import Vision


@torch.no_grad()
def score(model: Any, packer: Packer, asked: Sequence[Sample], size: int = 32) -> dict[str, float]:
    """Return the share of exact answers for each kind, and for all under "all"; as in training, one pass decides each."""
    vision, agreed = Vision(model).eval(), list[bool]()
    for start in range(0, len(asked), size):
        packed, pixels_BCHW = packer.singles(asked[start : start + size])
        states_BTL = last_states(model, vision, packed, pixels_BCHW)
        agreed += agreements(states_BTL, packed.labels_BT, model.lm_head)
    return shares([sample.kind for sample in asked], agreed)
