"""Repair methods under one budget: the same pruned model, data, order, steps and rank, a learning rate chosen for each.

Accuracy on the test questions after Wanda pruning at several sparsities and repair by every method; mean and spread over
seeds, which change the adapters' first values and the order of the data. The learning rate of a method is the best on the
validation split of 0.3, 1 and 3 times RESSA's default, and further out where the best is at an end, at 2:4 with seed 0.
Every finished run is stored at once, and not done again: a full run may be killed, or cut by --minutes, and started again.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from labels import ACCURACY, DENSE
from report import Bar, Report, Row, arguments, command, finish, measured, prepare, report
from variants import Stopwatch, Trial, Variants

from vlmc.runtime.artifact.writing import write_text
from vlmc.toolchain import data
from vlmc.toolchain.evaluate import Accuracy
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.repair.methods import METHODS
from vlmc.toolchain.settings import PruneSettings, RepairMethod, RepairSettings
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.versions import versions

NAME = "repair"
PATTERNS = ("2:4", "4:8", "50%", "60%", "70%")
FIRST, STEP, ENDS = (0.3, 1.0, 3.0), 10**0.5, (0.009, 31.0)
"""Learning rates beside RESSA's default: those tried first, how much further each next one is, and where the search ends."""
STORE = Path("build/benchmarks/repair")
NO_REPAIR, PEAK, UNIT = "no repair", "peak lr", "%"


@dataclass(frozen=True)
class Work:
    """How much is done: questions of either split (None: all), seeds, settings of the steps, learning rates tried first."""

    questions: int | None
    seeds: int
    prune: PruneSettings
    repair: RepairSettings
    factors: Sequence[float]
    patterns: Sequence[str] = PATTERNS

    @classmethod
    def of(cls, *, quick: bool) -> "Work":
        """Return the settings' own defaults, or as little as leaves every row in place."""
        if quick:
            return cls(8, 1, PruneSettings(calibration=4), RepairSettings(steps=2, batch=4), (1.0,))
        return cls(None, 3, PruneSettings(), RepairSettings(), FIRST)


class OutOfTime(Exception):
    """The time that was given is over."""


class Store:
    """Finished runs by what decides them, one file each; a run that is there is read, any other is done and kept.

    Raises:
        OutOfTime: a run is to be done, and the time is over.
    """

    def __init__(self, folder: Path, minutes: float | None = None) -> None:
        self.folder, self.started, self.minutes = folder, time.monotonic(), minutes
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, key: Mapping[str, Any], do: Callable[[], Trial]) -> Trial:
        """Return the result of the run with this key."""
        text = json.dumps({**key, "versions": versions()}, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))["trial"]
            return Trial(**{**content, "accuracy": Accuracy(**content["accuracy"])})
        if self.minutes is not None and time.monotonic() - self.started > 60 * self.minutes:
            raise OutOfTime
        trial = do()
        write_text(path, json.dumps({"key": json.loads(text), "trial": asdict(trial)}, indent=1) + "\n")
        told = ", ".join(str(key[name]) for name in ("model", "pattern", "method", "lr", "seed", "split") if name in key)
        print(f"{told}: {100 * trial.accuracy.overall:.2f} %", file=sys.stderr, flush=True)
        return trial


class Comparison:
    """All runs on one model."""

    def __init__(self, model: str, work: Work, store: Store) -> None:
        self.model, self.work, self.store = model, work, store
        self.digest = Checkpoint.find(model).digest
        self.variants = {
            split: Variants(model, list(data.load("demo", split, work.questions)), store.folder)
            for split in ("validation", "test")
        }

    def dense(self) -> Trial:
        """Measure the model as it is."""
        return self.store.run(self._key(), self.variants["test"].dense)

    def pruned(self, pattern: str) -> Trial:
        """Measure what pruning leaves."""
        return self.store.run(
            self._key(pattern=pattern), lambda: self.variants["test"].trials.question(self._artifact(pattern), Stopwatch())
        )

    def repaired(self, pattern: str, method: RepairMethod, rate: float, seed: int, split: str = "test") -> Trial:
        """Repair and measure."""
        options = self.work.repair.model_copy(update={"method": method, "lr": rate})
        key = self._key(pattern=pattern, method=method, lr=rate, seed=seed, split=split)
        return self.store.run(key, lambda: self.variants[split].repaired(self._artifact(pattern), options, seed))

    def rate(self, method: RepairMethod) -> float:
        """Return the method's learning rate: the best on the validation split, at the first pattern."""
        found: dict[float, float] = {}

        def attempt(factor: float) -> None:
            rate = float(f"{factor * self.default_rate:.3g}")
            trial = self.repaired(self.work.patterns[0], method, rate, 0, "validation")
            found[factor] = trial.accuracy.overall

        for factor in self.work.factors:
            attempt(factor)
        while len(found) > 1 and (further := _further(found)) is not None:
            attempt(further)
        return float(f"{max(found, key=lambda factor: found[factor]) * self.default_rate:.3g}")

    @property
    def default_rate(self) -> float:
        """RESSA's default for the width of the demos' layers."""
        return 0.32 / 64

    def _artifact(self, pattern: str) -> Checkpoint:
        """Return the pruned artifact, which is made once."""
        options = self.work.prune.model_copy(update={"target": pattern})
        text = json.dumps({"model": self.digest, "options": options.model_dump(mode="json"), "versions": versions()})
        folder = self.store.folder / f"pruned-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if not folder.is_dir():
            Prune(options).run(Checkpoint.find(self.model), folder)
        return Checkpoint(pattern, folder)

    def _key(self, **more: Any) -> dict[str, Any]:
        work = {**asdict(self.work), "prune": self.work.prune.model_dump(), "repair": self.work.repair.model_dump()}
        kept = {name: work[name] for name in ("questions", "prune", "repair")}
        return {"model": self.model, "digest": self.digest, **kept, **more}


def _further(found: Mapping[float, float]) -> float | None:
    """Return the next factor to try where the best is at an end of those tried, None where it is inside or at the limit."""
    best = max(found, key=lambda factor: found[factor])
    if best == max(found) and best * STEP <= ENDS[1]:
        return best * STEP
    return best / STEP if best == min(found) and best / STEP >= ENDS[0] else None


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=["demo"], help="which models [default: demo]")
    parser.add_argument("--patterns", nargs="+", help=f"which sparsities [default: {' '.join(PATTERNS)}]")
    parser.add_argument("--store", type=Path, default=STORE, help=f"where finished runs are kept [default: {STORE}]")
    parser.add_argument("--minutes", type=float, help="begin no run after so many minutes; start again to go on")
    chosen = parser.parse_args(given)
    prepare(chosen)
    work = Work.of(quick=chosen.quick)
    if chosen.patterns:
        work = Work(**{**vars(work), "patterns": tuple(chosen.patterns)})
    compare(chosen, work, command(NAME, given))


def compare(chosen: argparse.Namespace, work: Work, line: str) -> None:
    """Measure and report every model, or say how far it came when time is over."""
    store = Store(chosen.store, chosen.minutes)
    try:
        found = run(chosen.models, work, store, line)
    except OutOfTime:
        sys.exit(
            f"out of time; {len(list(store.folder.glob('*.json')))} runs are stored in {store.folder}: start again to go on"
        )
    finish(found, NAME, chosen)


def run(models: Sequence[str], work: Work, store: Store, line: str) -> Report:
    """Measure every model."""
    rows, bars = [], []
    for model in models:
        found_rows, found_bars = measure_model(Comparison(model, work, store))
        rows += found_rows
        bars += found_bars
    questions = {split: len(data.load("demo", split, work.questions)) for split in ("validation", "test")}
    settings = {"models": list(models), "questions": questions, "seeds": work.seeds, "patterns": list(work.patterns)}
    steps = {"prune": work.prune.model_dump(mode="json"), "repair": work.repair.model_dump(mode="json")}
    return report(line, rows, bars, {**settings, **steps})


def measure_model(comparison: Comparison) -> tuple[list[Row], list[Bar]]:
    """Return one model's rows: learning rates, then pattern by pattern no repair and every method; and its bars."""
    work, model = comparison.work, comparison.model
    dense = measured(f"{model}: {DENSE}", ACCURACY, [100 * comparison.dense().accuracy.overall], UNIT)
    rates = {method: comparison.rate(method) for method in METHODS}
    rows = [dense, *(measured(f"{model}: {method}", PEAK, [rate], "") for method, rate in rates.items())]
    bars, seconds = [], []
    for pattern in work.patterns:
        left = 100 * comparison.pruned(pattern).accuracy.overall
        rows.append(measured(f"{model} {pattern}: {NO_REPAIR}", ACCURACY, [left], UNIT, dense))
        trials = {
            method: [comparison.repaired(pattern, method, rate, seed) for seed in range(work.seeds)]
            for method, rate in rates.items()
        }
        for method, made in trials.items():
            name = f"{model} {pattern}: {method}"
            rows.append(measured(name, ACCURACY, [100 * trial.accuracy.overall for trial in made], UNIT, dense))
            seconds.append(measured(name, "time to repair", [trial.seconds["repair"] for trial in made], "s"))
        bars += bars_of(f"{model} {pattern}", trials)
    return rows + seconds, bars


def bars_of(where: str, trials: Mapping[RepairMethod, Sequence[Trial]]) -> list[Bar]:
    """Return by how much RESSA's mean is ahead of the methods that it must beat."""
    means = {method: 100 * fmean(trial.accuracy.overall for trial in made) for method, made in trials.items()}
    leads = {method: means["ressa"] - means[method] for method in ("lora-remask", "lors", "spp")}
    return [
        Bar(f"{where}: lead of ressa over {method}", "above 0 points", round(lead, 3), lead > 0)
        for method, lead in leads.items()
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
