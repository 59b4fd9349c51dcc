"""The runs that compare repair methods: each is done once and stored, in as many processes at a time as are asked for."""

import hashlib
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from stored import Store
from variants import Variants

from vlmc.toolchain import data
from vlmc.toolchain.evaluate import Accuracy
from vlmc.toolchain.evaluate.trials import Stopwatch, Trial
from vlmc.toolchain.machine.versions import versions
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.methods import METHODS
from vlmc.toolchain.settings import PruneSettings, RepairSettings
from vlmc.toolchain.stages.prune import Prune

PATTERNS = ("2:4", "4:8", "50%", "60%", "70%")
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in METHODS},
    "ressa --temperature 2": {"method": "ressa", "temperature": 2.0},
    "ressa --hidden 1": {"method": "ressa", "hidden": 1.0},
}
"""What is compared: every method with the settings that it has by itself, and RESSA with more of its teacher."""
_SHOWN = ("model", "pattern", "method", "temperature", "hidden", "lr", "seed", "split")
FIRST, STEP, ENDS = (0.3, 1.0, 3.0), 10**0.5, (0.009, 31.0)
"""Learning rates beside RESSA's default: those tried first, how much further each next one is, and where the search ends."""


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
    def of(cls, steps: int | None, *, quick: bool) -> "Work":
        """Return the settings' own defaults, with these steps if any, or as little as leaves every row in place.

        Wanda prunes, so that there is something to repair.
        """
        if quick:
            return cls(8, 1, PruneSettings(method="wanda", calibration=4), RepairSettings(steps=2, batch=4), (1.0,))
        return cls(None, 3, PruneSettings(method="wanda"), RepairSettings(steps=steps) if steps else RepairSettings(), FIRST)


class Comparison:
    """All runs on one model."""

    def __init__(self, model: str, work: Work, store: Store) -> None:
        self.model, self.work, self.store = model, work, store
        self.digest = SavedModel.find(model).digest
        self.variants = {
            split: Variants(model, list(data.load("demo", split, work.questions)), store.folder)
            for split in ("validation", "test")
        }

    def dense(self) -> Trial:
        """Measure the model as it is."""
        return self._trial(self._key(), self.variants["test"].dense)

    def pruned(self, pattern: str) -> Trial:
        """Measure what pruning leaves."""
        return self._trial(
            self._key(pattern=pattern), lambda: self.variants["test"].trials.question(self._artifact(pattern), Stopwatch())
        )

    def repaired(self, pattern: str, variant: str, rate: float, seed: int, split: str = "test") -> Trial:
        """Repair and measure."""
        changes = {**VARIANTS[variant], "lr": rate}
        options = self.work.repair.model_copy(update=changes)
        key = self._key(pattern=pattern, **changes, seed=seed, split=split)
        return self._trial(key, lambda: self.variants[split].repaired(self._artifact(pattern), options, seed))

    def rate(self, variant: str) -> float:
        """Return the variant's learning rate: the best on the validation split, at the first pattern."""
        found: dict[float, float] = {}

        def attempt(factor: float) -> None:
            rate = float(f"{factor * self.default_rate:.3g}")
            trial = self.repaired(self.work.patterns[0], variant, rate, 0, "validation")
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

    def _trial(self, key: Mapping[str, Any], do: Callable[[], Trial]) -> Trial:
        """Return the trial with this key, done now or stored."""

        def done() -> dict[str, Any]:
            trial = do()
            told = ", ".join(str(key[name]) for name in _SHOWN if name in key)
            print(f"{told}: {100 * trial.accuracy.overall:.2f} %", file=sys.stderr, flush=True)
            return asdict(trial)

        found = self.store.run(key, done)
        return Trial(**{**found, "accuracy": Accuracy(**found["accuracy"])})

    def _artifact(self, pattern: str) -> SavedModel:
        """Return the pruned artifact, which is made once."""
        options = self.work.prune.model_copy(update={"target": pattern})
        text = json.dumps({"model": self.digest, "options": options.model_dump(mode="json"), "versions": versions()})
        folder = self.store.folder / f"pruned-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if not folder.is_dir():
            Prune(options).run(SavedModel.find(self.model), folder)
        return SavedModel(pattern, folder)

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


@dataclass(frozen=True)
class Crew:
    """Processes that do runs of one model side by side, and leave them in the store."""

    model: str
    work: Work
    store: Store
    jobs: int
    begin: Callable[[], None]
    """What each process does first."""

    def fill(self) -> None:
        """Do every run: what pruning leaves, then the learning rates, then all that they are needed for.

        Raises:
            OutOfTime: the time ended before the last run was begun.
        """
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.jobs, context, self.begin) as pool:
            _results([pool.submit(_prune, self.comparison, pattern) for pattern in self.work.patterns])
            found = _results([pool.submit(_rate, self.comparison, variant) for variant in VARIANTS])
            rates = dict(zip(VARIANTS, found, strict=True))
            _results(
                [
                    pool.submit(_repair, self.comparison, pattern, variant, rate, seed)
                    for seed in range(self.work.seeds)
                    for pattern in self.work.patterns
                    for variant, rate in rates.items()
                ]
            )

    def comparison(self) -> Comparison:
        """Return the comparison that the runs belong to."""
        return Comparison(self.model, self.work, self.store)


def _results(futures: Sequence[Future[Any]]) -> list[Any]:
    return [future.result() for future in futures]


def _prune(comparison: Callable[[], Comparison], pattern: str) -> None:
    comparison().pruned(pattern)


def _rate(comparison: Callable[[], Comparison], variant: str) -> float:
    return comparison().rate(variant)


def _repair(comparison: Callable[[], Comparison], pattern: str, variant: str, rate: float, seed: int) -> None:
    comparison().repaired(pattern, variant, rate, seed)
