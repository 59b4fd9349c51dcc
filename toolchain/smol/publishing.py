"""Writing the trained part of `smol`: weights in fp16, a card with what was measured, and sums; and going on from it."""

import copy
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Idefics3ForConditionalGeneration

from vlmc.toolchain.demo.glyphs import Split
from vlmc.toolchain.demo.shipped import verify, write_sums
from vlmc.toolchain.smol.card import Measured, card
from vlmc.toolchain.smol.dataset import samples
from vlmc.toolchain.smol.joining import CARD, LANGUAGE, WEIGHTS, join, trained_part
from vlmc.toolchain.smol.learning import Plan, Training
from vlmc.toolchain.smol.scoring import score
from vlmc.toolchain.smol.text import perplexity
from vlmc.toolchain.smol.tuning import fill

NAMING = "naming.safetensors"
"""The linear readings of the first stage, with which training goes on; the joined model has no use for them."""


@dataclass(frozen=True)
class Run:
    """One training: how it was set, from which weights it started, on how many questions it is measured, its hours.

    Where it starts from weights, the encoder alone learns for `more_vision` steps first.
    """

    plan: Plan
    seed: int
    threads: int
    count: int
    start: Path | None = None
    more_vision: int = 0
    hours: float = 0.0


def publish(training: Training, gguf_path: Path, run: Run, out: Path) -> None:
    """Write a folder of the trained part; the whole model is joined from it, and that is what is measured."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh, whole = Path(scratch) / "trained", Path(scratch) / "whole"
        fresh.mkdir()
        _save(trained_part(training.model), fresh / WEIGHTS)
        _save(training.naming.state_dict(), fresh / NAMING)
        if training.language_learned:
            _save(training.language.parameters(), fresh / LANGUAGE)
        (fresh / CARD).touch()
        join(gguf_path, fresh, whole)
        (fresh / CARD).write_text(card(training.model, run, _measure(whole, training, run.count)), encoding="utf-8")
        for path in fresh.iterdir():
            path.chmod(0o644)
        write_sums(fresh)
        os.rename(fresh, out)


def begin(training: Training, folder: Path, more_vision: int = 0) -> None:
    """Start with the second stage from a folder that `publish` wrote; with the third one, where its language has learned.

    With `more_vision` steps of the encoder alone it starts with these, and goes through all stages after them.

    Raises:
        InputError: a file of the folder is damaged.
    """
    verify(folder)
    training.model.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    training.naming.load_state_dict(load_file(folder / NAMING))
    training.step, training.taught = training.plan.vision_steps - more_vision, True
    learned = (folder / LANGUAGE).is_file()
    if learned:
        fill(training.language, load_file(folder / LANGUAGE))
    if more_vision:
        training.former = copy.deepcopy(training.vision).requires_grad_(False)
    elif learned:
        training.step += training.plan.alignment_steps


def _save(weights: dict[str, Any], path: Path) -> None:
    save_file({name: weight.half().contiguous() for name, weight in weights.items()}, path)


def _measure(folder: Path, training: Training, count: int) -> Measured:
    model = Idefics3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    tokenizer = training.packer.tokenizer
    with training.language.off():
        before = perplexity(training.model, tokenizer)
    return Measured(
        {split: score(model, training.packer, samples(split, min(count, usual))) for split, usual in _SPLITS.items()},
        perplexity(model, tokenizer),
        before,
    )


_SPLITS: dict[Split, int] = {"validation": 1_000, "test": 2_000}
