"""What is measured of a variant of `smol`: answers right, how well it foresees the answers, and what it knows of plain text.

Perplexities are those of tokens: of the answers to test questions, and of text that no repair trains on.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModelForImageTextToText, AutoTokenizer

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.smol.learning import last_states
from vlmc.toolchain.smol.packed import IGNORE
from vlmc.toolchain.smol.packing import Packer
from vlmc.toolchain.smol.scoring import score
from vlmc.toolchain.smol.text import perplexity
from vlmc.toolchain.smol.vision import Vision

ANSWERS, TEXT = "perplexity of answers", "perplexity of plain text"
_BATCH = 28


def measure(folder: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    """Load a whole model in float32; return the share of exact answers by kind, "all" among them, and the perplexities."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    packer = Packer(AutoTokenizer.from_pretrained(folder))
    return {
        "right": score(model, packer, samples),
        ANSWERS: _of_answers(model, packer, samples),
        TEXT: perplexity(model, packer.tokenizer),
    }


@torch.no_grad()
def _of_answers(model: Any, packer: Packer, samples: Sequence[Sample]) -> float:
    vision, loss, tokens = Vision(model), 0.0, 0
    for start in range(0, len(samples), _BATCH):
        packed, pixels_BCHW = packer.singles(samples[start : start + _BATCH])
        chosen_BT = packed.labels_BT != IGNORE
        logits = model.lm_head(last_states(model, packed, vision(pixels_BCHW))[chosen_BT])
        loss += float(functional.cross_entropy(logits, packed.labels_BT[chosen_BT], reduction="sum"))
        tokens += int(chosen_BT.sum())
    return math.exp(loss / tokens)
