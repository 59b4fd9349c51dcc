"""Train the vision tower and the projector of `smol`: `python -m vlmc.toolchain.smol.train --work DIR --out DIR`.

It takes hours, keeps checkpoints in the folder `--work`, and goes on from the last one when it is started again. The
language model is fetched as `vlmc fetch smol` does it, and stays as it is.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import torch

from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain.smol.dataset import samples
from vlmc.toolchain.smol.fetching import language_model
from vlmc.toolchain.smol.joining import blank
from vlmc.toolchain.smol.language import read_tokenizer
from vlmc.toolchain.smol.learning import Plan, Training
from vlmc.toolchain.smol.packing import Recipe, look
from vlmc.toolchain.smol.publishing import Run, publish
from vlmc.toolchain.smol.scenes import draw_scene
from vlmc.toolchain.smol.scoring import score

RECIPE = Recipe(scenes=12, tokens=200)
CHECKPOINT = "checkpoint.pt"
_SAVE_EVERY = 300.0
"""Seconds between two checkpoints."""


def make(work: Path, out: Path, run: Run) -> None:
    """Train from the last checkpoint in `work`, if there is one, to the end; write the trained part to `out`.

    Raises:
        InputError: `out` exists, or `work` holds a training with another seed.
        EnvironmentLacks: the language model is not here and cannot be fetched.
    """
    if out.exists():
        raise InputError(f"{out} exists: choose another folder")
    gguf_path = language_model()
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(run.threads)
    torch.manual_seed(run.seed)
    model, tokenizer = blank(gguf_path), read_tokenizer(gguf_path)
    training = Training(model, tokenizer, run.recipe, run.plan, run.seed)
    seconds = _resume(training, work / CHECKPOINT)
    reporter = _Reporter(work, seconds)
    training.run(reporter)
    publish(model, tokenizer, gguf_path, replace(run, hours=reporter.seconds() / 3600), out)


def _resume(training: Training, path: Path) -> float:
    """Go on from a checkpoint, if there is one; return the seconds that it took to get there."""
    if not path.is_file():
        return 0.0
    state = torch.load(path, weights_only=True)
    if state.get("seed", training.seed) != training.seed:
        raise InputError(f"{path} is of a training with seed {state['seed']}: choose another --work, or that seed")
    training.load_state(state)
    return float(state.get("seconds", 0.0))


class _Reporter:
    """Says how training goes, and keeps a checkpoint."""

    def __init__(self, work: Path, seconds: float) -> None:
        self.work, self.before, self.shown = work, seconds, 0.0
        self.started = self.saved = time.monotonic()

    def seconds(self) -> float:
        """Return how long training has taken, runs before this one included."""
        return self.before + time.monotonic() - self.started

    def __call__(self, training: Training, loss: float) -> None:
        first = training.step <= training.plan.vision_steps
        ends_stage = training.step in (training.plan.vision_steps, training.plan.steps)
        self.shown = 0.95 * self.shown + 0.05 * loss if self.shown else loss
        if training.step % (100 if first else 20) == 0:
            self._say(f"step {training.step}: loss {self.shown:.4f}, {self.seconds():.0f} s")
        if training.step % (500 if first else 200) == 0:
            told = self._vision_accuracy(training) if first else self._accuracy(training)
            shown = ", ".join(f"{name} {share:.1%}" for name, share in told.items())
            self._say(f"step {training.step}: validation {shown}")
        if ends_stage or time.monotonic() - self.saved > _SAVE_EVERY:
            self._save(training)
        if ends_stage:
            self.shown = 0.0

    @staticmethod
    def _accuracy(training: Training) -> dict[str, float]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return score(training.model, training.packer, samples("validation", 240))

    @staticmethod
    def _vision_accuracy(training: Training) -> dict[str, float]:
        random = Random("vlmc smol validation")
        drawn = [draw_scene(random, "validation") for _ in range(300)]
        return training.vision_loss.score(training.vision.eval(), look(drawn, [None] * len(drawn)))

    def _save(self, training: Training) -> None:
        """Write a checkpoint beside the last one, then put it in its place."""
        torch.save({**training.state(), "seconds": self.seconds()}, self.work / "next.pt")
        os.replace(self.work / "next.pt", self.work / CHECKPOINT)
        self.saved = time.monotonic()

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line and train."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m vlmc.toolchain.smol.train", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints are kept; go on by naming it again")
    parser.add_argument("--out", type=Path, required=True, help="the folder of trained weights to write; must not exist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="the shipped weights were trained with the default")
    parser.add_argument("--vision-steps", type=int, default=plan.vision_steps, help="steps of the vision tower alone")
    parser.add_argument("--alignment-steps", type=int, default=plan.alignment_steps, help="steps with the language model")
    chosen = parser.parse_args()
    plan = replace(plan, vision_steps=chosen.vision_steps, alignment_steps=chosen.alignment_steps)
    try:
        make(chosen.work, chosen.out, Run(plan, RECIPE, chosen.seed, chosen.threads))
    except (EnvironmentLacks, InputError) as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
