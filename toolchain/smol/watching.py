"""What a long training of `smol` says while it goes on, and the checkpoints that it goes on from."""

import os
import sys
import time
from pathlib import Path
from random import Random

import torch

from vlmc.runtime.errors import InputError
from vlmc.toolchain.smol.dataset import samples
from vlmc.toolchain.smol.learning import Training
from vlmc.toolchain.smol.looks import look
from vlmc.toolchain.smol.scenes import draw_scene
from vlmc.toolchain.smol.scoring import score

CHECKPOINT = "checkpoint.pt"
_SAVE_EVERY = 180.0
"""Seconds between two checkpoints."""

_SHOWN = 140
"""Questions of a validation during training."""


def resume(training: Training, work: Path) -> float:
    """Go on from a checkpoint, if there is one; return the seconds that it took to get there.

    Raises:
        InputError: it is of a training with another seed.
    """
    path = work / CHECKPOINT
    if not path.is_file():
        return 0.0
    state = torch.load(path, weights_only=True)
    if state["seed"] != training.seed:
        raise InputError(f"{path} is of a training with seed {state['seed']}: choose another --work, or that seed")
    training.load_state(state)
    return float(state["seconds"])


class Watch:
    """Says how training goes, and keeps a checkpoint in `work`; `before` are the seconds of earlier runs."""

    def __init__(self, work: Path, before: float) -> None:
        self.work, self.before, self.shown = work, before, 0.0
        self.started = self.saved = time.monotonic()

    def seconds(self) -> float:
        """Return how long training has taken, runs before this one included."""
        return self.before + time.monotonic() - self.started

    def __call__(self, training: Training, loss: float) -> None:
        plan = training.plan
        first = training.step <= plan.vision_steps
        ends_stage = training.step in (plan.vision_steps, plan.vision_steps + plan.alignment_steps, plan.steps)
        self.shown = 0.9 * self.shown + 0.1 * loss if self.shown else loss
        if training.step % (25 if first else 5) == 0:
            self._say(f"step {training.step}: loss {self.shown:.4f}, {self.seconds():.0f} s")
        if training.step % (100 if first else 50) == 0:
            told = _vision_accuracy(training) if first else _accuracy(training)
            shown = ", ".join(f"{name} {share:.1%}" for name, share in told.items())
            self._say(f"step {training.step}: validation {shown}")
        if ends_stage or time.monotonic() - self.saved > _SAVE_EVERY:
            self._save(training)
        if ends_stage:
            self.shown = 0.0

    def _save(self, training: Training) -> None:
        """Write a checkpoint beside the last one, then put it in its place."""
        torch.save({**training.state(), "seconds": self.seconds()}, self.work / "next.pt")
        os.replace(self.work / "next.pt", self.work / CHECKPOINT)
        self.saved = time.monotonic()

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _accuracy(training: Training) -> dict[str, float]:
    return score(training.model, training.packer, samples("validation", _SHOWN))


@torch.no_grad()
def _vision_accuracy(training: Training) -> dict[str, float]:
    random = Random("vlmc smol validation")
    scenes = [draw_scene(random, "validation") for _ in range(200)]
    shown = look(scenes, [None] * len(scenes))
    return training.naming.score(training.vision.seen(shown.pixels_BCHW), shown)
