"""Answers right on the demos' test questions: dense, pruned, repaired with RESSA, repaired without the mask.

Every pruner prunes vision and language, to 2:4, and one to 70 % without a pattern as well; RESSA repairs each result; plain
LoRA, merged and masked again, repairs Wanda's.
The steps are vlmc's own, with their default settings. A seed changes the repair: adapters' first values, order of the data.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from labels import ACCURACY, BEST, DENSE, REMASKED, RESSA, SPARSEST, STARTS, WANDA
from report import Bar, Report, Row, arguments, at_least, command, finish, measured, prepare, report
from variants import Variants

from vlmc.toolchain import data
from vlmc.toolchain.evaluate.trials import Trial
from vlmc.toolchain.settings import PruneSettings, RepairSettings

UNIT = "%"
DENSE_GOALS = {"demo": (90, 80), "demo-blip2": (80, None)}
"""What a dense demo must reach in percent: overall, and in every kind of question."""
SHARES = {WANDA: 97, BEST: 97, SPARSEST: 90}
"""What must be left after repair, in percent of the dense model's accuracy."""
MINUTES = 10
"""In which a model must be pruned, repaired and merged."""


@dataclass(frozen=True)
class Work:
    """How much is done: the questions of the test split (None: all), the seeds, and the settings of the steps."""

    questions: int | None
    seeds: int
    prune: PruneSettings
    repair: RepairSettings

    @classmethod
    def of(cls, seeds: int, *, quick: bool) -> "Work":
        """Return the settings' own defaults, or as little as leaves every row in place."""
        if quick:
            return cls(40, seeds, PruneSettings(calibration=8), RepairSettings(steps=4, batch=8))
        return cls(None, seeds, PruneSettings(), RepairSettings())

    def described(self, models: Sequence[str]) -> dict[str, Any]:
        """Return all of it as JSON values; the pruning method is every one of them."""
        prune, repair = self.prune.model_dump(mode="json", exclude={"method"}), self.repair.model_dump(mode="json")
        questions = len(data.load("demo", "test", self.questions))
        return {"models": list(models), "questions": questions, "seeds": self.seeds, "prune": prune, "repair": repair}


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(DENSE_GOALS), help="which models [default: both demos]")
    parser.add_argument("--seeds", type=int, choices=(1, 2, 3), help="repairs of each kind [default: 2; 1 if --quick]")
    chosen = parser.parse_args(given)
    prepare(chosen)
    work = Work.of(chosen.seeds or (1 if chosen.quick else 2), quick=chosen.quick)
    finish(run(chosen.models, work, command("quality", given)), "quality", chosen)


def run(models: Sequence[str], work: Work, line: str) -> Report:
    """Measure every model."""
    rows, bars = [], []
    for model in models:
        trials = try_all(model, work)
        rows += rows_of(model, trials)
        bars += bars_of(model, trials)
    return report(line, rows, bars, work.described(models))


def try_all(model: str, work: Work) -> dict[str, list[Trial]]:
    """Make and question every variant of a model; one trial a seed where a seed changes anything."""
    trials: dict[str, list[Trial]] = {}

    def keep(variant: str, trial: Trial) -> None:
        trials.setdefault(variant, []).append(trial)
        print(f"{model}, {variant}: {100 * trial.accuracy.overall:.1f} %", file=sys.stderr, flush=True)

    with TemporaryDirectory() as scratch:
        variants = Variants(model, list(data.load("demo", "test", work.questions)), Path(scratch))
        keep(DENSE, variants.dense())
        for label, changes in STARTS.items():
            pruned, trial = variants.pruned(work.prune.model_copy(update=changes))
            keep(label, trial)
            for seed in range(work.seeds):
                keep(f"{label} + {RESSA}", variants.repaired(pruned, work.repair, seed))
                if label == WANDA:
                    keep(f"{label} + {REMASKED}", variants.remasked(pruned, work.repair, seed))
    return trials


def rows_of(model: str, trials: Mapping[str, list[Trial]]) -> list[Row]:
    """Return one model's rows: accuracies beside the dense model's, then by kind of question, seconds and bytes."""
    dense = measured(f"{model}: {DENSE}", ACCURACY, _overall(trials[DENSE]), UNIT)
    rows = [dense]
    for variant in list(trials)[1:]:
        rows.append(measured(f"{model}: {variant}", ACCURACY, _overall(trials[variant]), UNIT, dense))
    rows += [_lead(model, trials)]
    for kind in trials[DENSE][0].accuracy.by_kind:
        rows += _beside_dense(model, trials, kind)
    return rows + _seconds(model, trials) + _sizes(model, trials)


def bars_of(model: str, trials: Mapping[str, list[Trial]]) -> list[Bar]:
    """Return what is asked of one model."""
    means = {variant: fmean(_overall(made)) for variant, made in trials.items()}
    dense, lead = means[DENSE], means[f"{WANDA} + {RESSA}"] - means[f"{WANDA} + {REMASKED}"]
    kept = {label: 100 * means[f"{label} + {RESSA}"] / dense if dense else 0.0 for label in SHARES}
    return [
        *_dense_bars(model, trials),
        at_least(f"{model}: lost by Wanda 2:4 without repair", 8, dense - means[WANDA], "points"),
        *(at_least(f"{model}: {label} + {RESSA} of dense accuracy", SHARES[label], kept[label], UNIT) for label in SHARES),
        Bar(f"{model}: lead of {RESSA} over {REMASKED}", "above 0 points", round(lead, 3), lead > 0),
        _time_bar(model, trials),
    ]


def _dense_bars(model: str, trials: Mapping[str, list[Trial]]) -> list[Bar]:
    overall, every = DENSE_GOALS.get(model, (None, None))
    bars = []
    if overall is not None:
        bars.append(at_least(f"{model}: dense accuracy", overall, fmean(_overall(trials[DENSE])), UNIT))
    if every is not None:
        least = min(trials[DENSE][0].accuracy.by_kind.values())
        bars.append(at_least(f"{model}: dense accuracy in the worst kind of question", every, 100 * least, UNIT))
    return bars


def _time_bar(model: str, trials: Mapping[str, list[Trial]]) -> Bar:
    """Return the longest time from the dense model to the merged one."""
    longest = max(
        trials[label][0].seconds["prune"] + trial.seconds["repair"] + trial.seconds["merge"]
        for label in STARTS
        for trial in trials[f"{label} + {RESSA}"]
    )
    minutes = longest / 60
    return Bar(
        f"{model}: prune, repair, merge, the slowest", f"at most {MINUTES} min", round(minutes, 2), minutes <= MINUTES
    )


def _overall(trials: Sequence[Trial]) -> list[float]:
    return [100 * trial.accuracy.overall for trial in trials]


def _lead(model: str, trials: Mapping[str, list[Trial]]) -> Row:
    """Return by how much RESSA is ahead, seed by seed."""
    ours, theirs = (_overall(trials[f"{WANDA} + {repair}"]) for repair in (RESSA, REMASKED))
    leads = [one - other for one, other in zip(ours, theirs, strict=True)]
    row = measured(f"{model}: {WANDA} + {RESSA}", "lead in accuracy", leads, "points")
    return replace(row, baseline=f"{model}: {WANDA} + {REMASKED}")


def _beside_dense(model: str, trials: Mapping[str, list[Trial]], kind: str) -> list[Row]:
    """Return the accuracy on one kind of question: dense, pruned by Wanda, repaired."""
    rows: list[Row] = []
    for variant in (DENSE, WANDA, f"{WANDA} + {RESSA}"):
        values = [100 * trial.accuracy.by_kind[kind] for trial in trials[variant]]
        rows.append(measured(f"{model}: {variant}", f"{ACCURACY}, {kind}", values, UNIT, rows[0] if rows else None))
    return rows


def _seconds(model: str, trials: Mapping[str, list[Trial]]) -> list[Row]:
    """Return how long each step took."""
    return [
        measured(f"{model}: {variant}", f"time to {step}", [trial.seconds[step] for trial in made], "s")
        for variant, made in trials.items()
        for step in made[0].seconds
    ]


def _sizes(model: str, trials: Mapping[str, list[Trial]]) -> list[Row]:
    """Return the bytes on disk: weights keep the dense layout, zeros included; masks take a bit a weight."""
    dense, repaired = trials[DENSE][0].sizes, trials[f"{WANDA} + {RESSA}"][0].sizes
    base = measured(f"{model}: {DENSE}", "size of weights", [dense["weights"]], "bytes")
    name = f"{model}: {WANDA} + {RESSA}"
    return [base, *(measured(name, f"size of {part}", [size], "bytes", base) for part, size in repaired.items())]


if __name__ == "__main__":
    main(sys.argv[1:])
