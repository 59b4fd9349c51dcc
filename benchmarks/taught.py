"""Teaching a pruned pico model answers about pictures, so that its logits lie as far apart as a trained model's.

Random weights give logits that are all but equal: which one is the largest is then a matter of rounding.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from vlmc.toolchain.data.encode import Encoded, Encoder
from vlmc.toolchain.data.sample import Sample

STEPS, RATE, ENOUGH = 400, 3e-3, 0.1
"""The most steps of Adam, its rate, and the loss (nats a token) at which a model knows its answers."""


def teach(model: nn.Module, encoder: Encoder, asked: Sequence[Sample], words: Sequence[str], sparse: Iterable[str]) -> None:
    """Train a model to answer each question with words of its own, drawn from `words`, as many as it has room for.

    An answer has at most 32 words. Zeros of the layers `sparse` stay zeros.
    """
    draw = np.random.default_rng(0)
    lessons = [_lesson(encoder, sample, [str(word) for word in draw.choice(words, 32)]) for sample in asked]
    kept = {name: model.get_submodule(name).weight != 0 for name in sparse}
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    runs: Any = model
    for _ in range(STEPS):
        optimizer.zero_grad()
        losses = [runs(**lesson).loss for lesson in lessons]
        if max(losses) < ENOUGH:
            break
        torch.autograd.backward(losses)
        optimizer.step()
        with torch.no_grad():
            for name, mask in kept.items():
                model.get_parameter(f"{name}.weight").mul_(mask)


def _lesson(encoder: Encoder, sample: Sample, words: list[str]) -> Encoded:
    room = encoder.room(encoder.question(sample))
    most = len(words) if room is None else min(len(words), room - 1)  # one more token ends the answer
    return encoder.answered(dataclasses.replace(sample, answer=" ".join(words[:most])))
