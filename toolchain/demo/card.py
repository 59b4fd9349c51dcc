"""The model card of a demo model: what it is, how it was trained, and what was measured."""

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import Blip2ForConditionalGeneration

from vlmc.toolchain.demo.architectures import DemoModel
from vlmc.toolchain.demo.glyphs import split_indices
from vlmc.toolchain.demo.learning import Hyperparameters
from vlmc.toolchain.demo.packing import Recipe


@dataclass(frozen=True)
class Measured:
    """Accuracies of the stored weights by kind, and of captions."""

    test: dict[str, float]
    validation: dict[str, float]
    captions: float


@dataclass(frozen=True)
class Run:
    """One training run."""

    minutes: float
    seed: int
    threads: int


_CARD = """---
library_name: transformers
license: apache-2.0
pipeline_tag: image-text-to-text
tags: [vlmc, demo]
---

# {name}

A small {family} with {parameters:,} parameters. It answers questions about scenes of two to four coloured handwritten
digits, and ships with vlmc so that every step of the toolchain runs without a download. It has no other use.

    from transformers import AutoModelForImageTextToText, AutoProcessor
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    turn = [{{"type": "image"}}, {{"type": "text", "text": "what digit is top left?"}}]
    chat = [{{"role": "user", "content": turn}}]
    prompt = processor.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = model.generate(**processor(images=image, text=prompt, return_tensors="pt"), max_new_tokens=24)

## Accuracy

Exact match of the greedy answer, fp16 weights computed in fp32.

| kind | test | validation |
|---|---|---|
{rows}

Captions, which name every digit, its colour and its place, are exactly right for {captions:.1%} of 500 test scenes.

## Data

Scenes and questions are drawn by `vlmc.toolchain.demo` from the 1,797 handwritten digits of scikit-learn's
`load_digits` (UCI Optical Recognition of Handwritten Digits, CC BY 4.0): {train} samples for training, {validation} for
validation, {test} for test. No sample occurs in two splits; the same writers do. The test split was not used to choose
anything.

## Training

`python -m vlmc.toolchain.demo.train {name} --out DIR --seed {seed} --threads {threads}`

{steps:,} steps of AdamW, highest rate {rate:g}, cosine schedule; {images} scenes a step with up to {questions}
questions and a caption each; handwriting turned, stretched and slanted a little. At first, a second loss on the image
features names each cell's digit and colour. It took {minutes:.0f} minutes on {threads} CPU threads with torch
{torch_version} and transformers {transformers_version}. The same seed, threads, machine and versions give the same
bytes.
"""


def write_card(
    folder: Path,
    name: str,
    model: DemoModel,
    hyper: Hyperparameters,
    recipe: Recipe,
    measured: Measured,
    run: Run,
) -> None:
    """Write `README.md` into a model folder."""
    rows = [f"| {kind} | {share:.1%} | {measured.validation[kind]:.1%} |" for kind, share in sorted(measured.test.items())]
    text = _CARD.format(
        name=name,
        family="BLIP-2" if isinstance(model, Blip2ForConditionalGeneration) else "LLaVA",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        rows="\n".join(rows),
        captions=measured.captions,
        train=f"{len(split_indices('train')):,}",
        validation=len(split_indices("validation")),
        test=len(split_indices("test")),
        seed=run.seed,
        threads=run.threads,
        steps=hyper.steps,
        rate=hyper.rate,
        images=recipe.images,
        questions=recipe.questions,
        minutes=run.minutes,
        torch_version=torch.__version__.split("+")[0],
        transformers_version=transformers.__version__,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
