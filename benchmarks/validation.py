"""Accuracy on the validation split of settings around RESSA's defaults, one changed at a time, from Wanda 2:4.

The defaults of rank, learning rate, steps and lambda were chosen on this split; the test split chose nothing.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from labels import ACCURACY, DEFAULTS, DEMOS
from report import Bar, Report, Row, arguments, command, finish, measured, prepare, report
from variants import Variants

from vlmc.toolchain import data
from vlmc.toolchain.settings import PruneSettings, RepairSettings

MARGIN = 1.0  # points of accuracy; what a thousand questions can tell apart is not less


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(DEMOS), help="which models [default: both demos]")
    chosen = parser.parse_args(given)
    prepare(chosen)
    quick = RepairSettings(steps=4, batch=4)
    base, questions = (quick, 20) if chosen.quick else (RepairSettings(), None)
    finish(run(chosen.models, base, questions, command("validation", given)), "repair_validation", chosen)


def run(models: Sequence[str], base: RepairSettings, questions: int | None, line: str) -> Report:
    """Measure every setting on every model."""
    rows, bars = [], []
    for model in models:
        found = try_all(model, base, questions)
        rows += found
        bars.append(bar_of(model, found))
    settings = {"models": list(models), "split": "validation", "questions": len(data.load("demo", "validation", questions))}
    return report(line, rows, bars, {**settings, "repair": base.model_dump(mode="json")})


def neighbours(base: RepairSettings, rate: float) -> dict[str, RepairSettings]:
    """Return the settings to try by what is changed; `rate` is what the defaults come to for the model at hand.

    alpha follows the rank, so that the scale of an update stays.
    """
    changes: dict[str, dict[str, object]] = {}
    for factor in (0.25, 2):
        rank = max(1, round(factor * base.rank))
        changes[f"rank {rank}"] = {"rank": rank, "alpha": base.alpha * rank / base.rank}
    changes |= {f"lr x {factor:g}": {"lr": factor * rate} for factor in (0.2, 0.5, 2)}
    changes |= {f"{steps} steps": {"steps": steps} for steps in (base.steps // 2, base.steps * 2)}
    weights = (weight for weight in (0.0, 1.0) if weight != base.task_weight)
    changes |= {f"lambda {weight:g}": {"task_weight": weight} for weight in weights}
    other = "reverse" if base.kl == "forward" else "forward"
    changes[f"{other} KL"] = {"kl": other}
    return {name: base.model_copy(update=change) for name, change in changes.items()}


def try_all(model: str, base: RepairSettings, questions: int | None) -> list[Row]:
    """Return rows of accuracy, of seconds and of the peak learning rate, one for each setting, the defaults first."""
    with TemporaryDirectory() as scratch:
        variants = Variants(model, list(data.load("demo", "validation", questions)), Path(scratch))
        pruned, _ = variants.pruned(PruneSettings())
        trials = {DEFAULTS: variants.repaired(pruned, base, seed=0)}
        for change, options in neighbours(base, trials[DEFAULTS].measures["repair"]["peak_lr"]).items():
            trials[change] = variants.repaired(pruned, options, seed=0)
            print(f"{model}, {change}: {100 * trials[change].accuracy.overall:.1f} %", file=sys.stderr, flush=True)
    return [
        *_rows(model, ACCURACY, {change: 100 * trial.accuracy.overall for change, trial in trials.items()}, "%"),
        *_rows(model, "time to repair", {change: trial.seconds["repair"] for change, trial in trials.items()}, "s"),
        *_rows(model, "peak lr", {change: trial.measures["repair"]["peak_lr"] for change, trial in trials.items()}, ""),
    ]


def _rows(model: str, metric: str, values: Mapping[str, float], unit: str) -> list[Row]:
    first = measured(f"{model}: {DEFAULTS}", metric, [values[DEFAULTS]], unit)
    others = (change for change in values if change != DEFAULTS)
    return [first, *(measured(f"{model}: {change}", metric, [values[change]], unit, first) for change in others)]


def bar_of(model: str, rows: Sequence[Row]) -> Bar:
    """Return whether no setting beats the defaults by more than the margin."""
    found = {row.name: row.value for row in rows if row.metric == ACCURACY and row.value is not None}
    best = max(found, key=lambda name: found[name])
    lead = found[best] - found[f"{model}: {DEFAULTS}"]
    name = f"{model}: lead of the best ({best.removeprefix(f'{model}: ')}) over the defaults"
    return Bar(name, f"at most {MARGIN:g} points", round(lead, 3), lead <= MARGIN)


if __name__ == "__main__":
    main(sys.argv[1:])
