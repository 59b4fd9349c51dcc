"""The runs on `smol`: pruned, repaired and merged by vlmc's own commands, each in a process of its own, then measured.

Every run is stored once it is done. Pruned artifacts are kept, repaired ones are deleted after they were measured.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from processes import spend
from stored import Found, Store, digest

from pretraining.measures import measure
from vlmc.runtime.artifact.texts import write_text
from vlmc.toolchain import data
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.data.writing import write
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.smol.text import for_training

STARTS: dict[str, tuple[str, ...]] = {
    "magnitude": ("--method", "magnitude"),
    "Wanda": ("--method", "wanda"),
    "Wanda, text in calibration": ("--method", "wanda"),
    "SparseGPT": ("--method", "sparsegpt"),
    "ADMM": ("--method", "admm"),
    "ADMM, text in calibration": ("--method", "admm"),
    "ADMM, refitted": ("--method", "admm", "--refit"),
    "ADMM, reconstructed": ("--method", "admm", "--reconstruct"),
    "ADMM, reconstructed, text in calibration": ("--method", "admm", "--reconstruct"),
}
"""How it is pruned to 2:4."""
WITH_TEXT = frozenset(start for start in STARTS if start.endswith("text in calibration"))
"""What is calibrated on questions and text; the others are on questions."""
OTHER_RATES = {
    f"RESSA, learning rate {rate}": ("--method", "ressa", "--lr", rate) for rate in ("0.00028", "0.0011", "0.0022")
}
"""At half of the usual peak learning rate for `smol`, 0.32 / width = 0.00056, and at two and four times that."""
REPAIRS: dict[str, tuple[str, ...]] = {
    "RESSA": ("--method", "ressa"),
    "RESSA, no teacher": ("--method", "sparse-lora"),
    "LoRA merged and re-masked": ("--method", "lora-remask"),
    "LoRS": ("--method", "lors"),
    "all kept weights": ("--method", "masked-full"),
    **OTHER_RATES,
}
"""What is trained."""
CLEAN, MIXED, WRONG = "", "with text", "a fifth of the labels wrong"
"""What it is trained on: questions, seven of them to three pieces of text, or questions, a fifth with another answer."""
WRONG_EVERY, PIECE = 5, 500


@dataclass(frozen=True)
class Work:
    """How much is done. `model` is a folder or a name; the budget of every repair is `steps` of `batch` samples.

    `precision` is the type of the matrix products of every repair.
    """

    model: str = "smol"
    questions: int = 420
    calibration: int = 128
    steps: int = 300
    batch: int = 16
    samples: int = 2_000
    threads: int | None = None
    precision: str = "fp32"


class Runs:
    """All runs of one benchmark."""

    def __init__(self, work: Work, store: Store) -> None:
        self.work, self.store = work, store
        self.dense_folder = SavedModel.find(work.model).folder
        self.digest = SavedModel.find(work.model).digest
        self.asked: Sequence[Sample] = list(data.load("smol", "test", work.questions))

    def dense(self) -> Found:
        """Measure the model as it is."""
        return self.store.run(self._key(), lambda: measure(self.dense_folder, self.asked))

    def pruned(self, start: str) -> Found:
        """Prune, and measure what is left."""

        def do() -> Found:
            spent = self._prune(start)
            return {**measure(self._pruned_folder(start), self.asked), "prune": spent}

        return self.store.run(self._key(**self._start(start)), do)

    def repaired(
        self,
        start: str,
        repair: str,
        seed: int,
        trained_on: str = CLEAN,
        samples: int | None = None,
        steps: int | None = None,
    ) -> Found:
        """Repair what pruning left, merge, and measure; `samples` and `steps` are other than the usual numbers."""
        work, count = replace(self.work, steps=steps or self.work.steps), samples or self.work.samples
        budget = {"steps": work.steps, "batch": work.batch, "samples": count, "data": trained_on, "seed": seed}
        budget |= {"precision": work.precision} if work.precision != "fp32" else {}
        key = self._key(**self._start(start), repair=REPAIRS[repair], **budget)

        def do() -> Found:
            self.pruned(start)
            if not self._pruned_folder(start).is_dir():  # its measures are stored, but not the artifact
                self._prune(start)
            folder = self.store.folder / f"run-{digest(json.dumps(key))}"
            adapted, merged = folder / "adapted", folder / "merged"
            options: tuple[str, ...] = ("--steps", str(work.steps), "--batch", str(work.batch), "--seed", str(seed))
            options += ("--pruned-questions", "0", "--precision", work.precision)
            options += ("--samples", str(count), "--hold-out", "0", "--data", self._data(trained_on, count))
            options += ("--out", str(adapted))
            resume = ("--resume",) if adapted.with_name("adapted.checkpoints").is_dir() else ()
            folder.mkdir(exist_ok=True)
            source = str(self._pruned_folder(start))
            spent = self._spend("repair", source, *REPAIRS[repair], *options, *resume, "--dense", str(self.dense_folder))
            self._spend("merge", str(adapted), "--out", str(merged))
            found = {**measure(merged, self.asked), "repair": spent}
            shutil.rmtree(folder)
            return found

        return self.store.run(key, do)

    def _prune(self, start: str) -> dict[str, float]:
        shutil.rmtree(self._pruned_folder(start), ignore_errors=True)
        folder = str(self._pruned_folder(start))
        data = self._data(MIXED if start in WITH_TEXT else CLEAN, self.work.calibration)
        usual = ("--data", data, "--calibration", str(self.work.calibration), "--out", folder)
        return self._spend("prune", str(self.dense_folder), *STARTS[start], *usual)

    def _pruned_folder(self, start: str) -> Path:
        mixed = [MIXED] if start in WITH_TEXT else []
        text = json.dumps([self.digest, STARTS[start], self.work.calibration, *mixed])
        return self.store.folder / f"pruned-{digest(text)}"

    def _start(self, start: str) -> dict[str, Any]:
        mixed = {"calibrated_on": MIXED} if start in WITH_TEXT else {}
        return {"start": STARTS[start], "calibration": self.work.calibration, **mixed}

    def _spend(self, *arguments: str) -> dict[str, float]:
        spent = spend(arguments, self.work.threads)
        return {"seconds": spent.seconds, "peak": spent.peak}

    def _data(self, trained_on: str, count: int) -> str:
        """Return `--data` of what is trained on, written into the store where it is not vlmc's own."""
        if trained_on == WRONG:
            folder = self.store.folder / f"wrong-{count}"
            if not folder.is_dir():
                write(with_wrong_answers(data.load("smol", "train", count)), folder, "train")
            return str(folder)
        if trained_on == CLEAN:
            return "smol"
        rows = self.store.folder / "text.jsonl"
        write_text(rows, "\n".join(json.dumps({"text": piece}) for piece in pieces(for_training())) + "\n")
        return f"smol=0.7,{rows}=0.3?image=none"

    def _key(self, **more: Any) -> Mapping[str, Any]:
        return {"digest": self.digest, "questions": self.work.questions, **more}


def with_wrong_answers(samples: Sequence[Sample]) -> list[Sample]:
    """Give every fifth sample of a kind the answer of another one of that kind."""
    by_kind = defaultdict[str, list[int]](list)
    for place, sample in enumerate(samples):
        by_kind[sample.kind].append(place)
    changed = list(samples)
    for places in by_kind.values():
        for place in places[::WRONG_EVERY]:
            others = [samples[other].answer for other in places if samples[other].answer != samples[place].answer]
            if others:
                answer = Random(f"vlmc wrong answers {place}").choice(others)
                changed[place] = replace(samples[place], answer=answer)
    return changed


def pieces(text: str) -> list[str]:
    """Cut a text into pieces of `PIECE` characters."""
    return [text[start : start + PIECE] for start in range(0, len(text) - PIECE, PIECE)]
