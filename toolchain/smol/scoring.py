"""Accuracy of `smol`, kind by kind: an answer counts when greedy decoding gives exactly it.

One pass over question and answer is enough: greedy decoding gives the answer if each of its tokens is the likeliest one
after those before it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.smol.learning import last_states
from vlmc.toolchain.smol.packed import IGNORE
from vlmc.toolchain.smol.packing import Packer
from vlmc.toolchain.smol.vision import Vision


@torch.no_grad()
def score(model: Any, packer: Packer, asked: Sequence[Sample], size: int = 28) -> dict[str, float]:
    """Return the share of exact answers for each kind, and for all under "all"."""
    vision, right = Vision(model), defaultdict[str, list[bool]](list)
    ordered = sorted(asked, key=lambda sample: len(sample.question) + len(sample.answer))
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        packed, pixels_BCHW = packer.singles(part)
        chosen_BT = packed.labels_BT != IGNORE
        told = model.lm_head(last_states(model, packed, vision(pixels_BCHW))[chosen_BT]).argmax(-1)
        agrees_BT = ~chosen_BT
        agrees_BT[chosen_BT] = told == packed.labels_BT[chosen_BT]
        agrees_B = agrees_BT.all(-1)
        for sample, agrees in zip(part, agrees_B.tolist(), strict=True):
            right[sample.kind].append(agrees)
            right["all"].append(agrees)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}
