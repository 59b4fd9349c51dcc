"""Train a demo model from scratch and write its folder: `python -m vlmc.toolchain.demo.train demo --out DIR`.

The same seed and the same number of threads on the same machine and torch give the same bytes.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import Blip2Processor, LlavaProcessor

from vlmc.runtime.errors import InputError
from vlmc.toolchain.demo.architectures import (
    PATCHES,
    QUERIES,
    DemoModel,
    Size,
    blip2_processor,
    build_blip2,
    build_llava,
    llava_processor,
    save,
)
from vlmc.toolchain.demo.card import Measured, Run, write_card
from vlmc.toolchain.demo.dataset import samples
from vlmc.toolchain.demo.learning import Grounding, Hyperparameters, train
from vlmc.toolchain.demo.packing import Recipe
from vlmc.toolchain.demo.questions import CAPTION
from vlmc.toolchain.demo.scoring import score
from vlmc.toolchain.demo.shipped import write_sums
from vlmc.toolchain.demo.vocabulary import BOS, IMAGE, VOCABULARY

_IMAGE, _BOS = VOCABULARY.index(IMAGE), VOCABULARY.index(BOS)


@dataclass(frozen=True)
class Demo:
    """How one demo model is made; `cells_KI` averages the image features of each cell."""

    build: Callable[[Size], DemoModel]
    processor: Callable[[], LlavaProcessor | Blip2Processor]
    size: Size
    cells_KI: Tensor
    recipe: Recipe
    hyper: Hyperparameters


def _patch_cells() -> Tensor:
    """LLaVA's features are 4 x 4 patches, row by row; a cell is 2 x 2 of them."""
    cells_KI = torch.zeros(4, PATCHES)
    for patch in range(PATCHES):
        row, column = divmod(patch, 4)
        cells_KI[row // 2 * 2 + column // 2, patch] = 4 / PATCHES
    return cells_KI


def _query_cells() -> Tensor:
    """BLIP-2's features are its queries; a cell is a quarter of them."""
    return torch.eye(4).repeat_interleave(QUERIES // 4, dim=1) * 4 / QUERIES


_EMPHASIS = {"where": 1.5, "exists": 1.5, "compare": 2.0, "sum": 1.5}

DEMOS = {
    "demo": Demo(
        build_llava,
        llava_processor,
        Size(),
        _patch_cells(),
        Recipe(prefix=(_BOS, *[_IMAGE] * PATCHES), images=32, questions=8, emphasis=_EMPHASIS),
        Hyperparameters(steps=8_000, rate=2e-3, warm=300, grounded=0.5),
    ),
    "demo-blip2": Demo(
        build_blip2,
        blip2_processor,
        Size(),
        _query_cells(),
        Recipe(prefix=(*[_IMAGE] * QUERIES, _BOS), images=32, questions=8, emphasis=_EMPHASIS),
        Hyperparameters(steps=7_000, rate=1.5e-3, warm=300, grounded=0.5),
    ),
}


def make(name: str, out: Path, seed: int, threads: int) -> None:
    """Train the model `name`, measure its fp16 weights and write its folder.

    Raises:
        InputError: `out` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists: choose another folder")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    started, demo = time.monotonic(), DEMOS[name]
    model = demo.build(demo.size)
    grounding = Grounding(demo.size.width, demo.cells_KI)
    train(model, grounding, demo.recipe, demo.hyper, seed, _progress(model, demo))
    minutes = (time.monotonic() - started) / 60
    publish(name, model, out, Run(minutes, seed, threads))


def publish(name: str, model: DemoModel, out: Path, run: Run) -> None:
    """Round a trained model to fp16, measure it and write its folder, checksums last."""
    demo = DEMOS[name]
    prefix = demo.recipe.prefix
    model.half().float()
    measured = Measured(
        test=score(model, prefix, samples("test")),
        validation=score(model, prefix, samples("validation")),
        captions=score(model, prefix, samples("test", 500, [CAPTION]))["all"],
    )
    save(model, demo.processor(), out)
    write_card(out, name, model, demo.hyper, demo.recipe, measured, run)
    write_sums(out)


def _progress(model: DemoModel, demo: Demo) -> Callable[[int], None]:
    def report(step: int) -> None:
        accuracy = score(model, demo.recipe.prefix, samples("validation"))
        shown = ", ".join(f"{kind} {share:.1%}" for kind, share in accuracy.items())
        print(f"step {step}: validation {shown}", file=sys.stderr, flush=True)

    return report


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m vlmc.toolchain.demo.train", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(DEMOS))
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the model folder to write; must not exist",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads",
        type=int,
        default=2,
        help="the shipped models were trained with the default",
    )
    chosen = parser.parse_args()
    try:
        make(chosen.name, chosen.out, chosen.seed, chosen.threads)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
