"""Repair methods under one budget: the same pruned model, data, order, steps and rank, a learning rate chosen for each.

Accuracy on the test questions after Wanda pruning at several sparsities and repair by every method; mean and spread over
seeds, which change the adapters' first values and the order of the data. The learning rate of a method is the best on the
validation split of 0.3, 1 and 3 times RESSA's default, and further out where the best is at an end, at 2:4 with seed 0.
Every finished run is stored at once, and not done again: a full run may be killed, or cut by --minutes, and started again.
With --jobs, several runs are made side by side, in processes of their own; as they compete, no times are then reported.
A full run also brings the table in docs/repair.md up to date; --table does that from the results that are there.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from labels import ACCURACY, DENSE
from pages import DOCS, fill, with_table
from repair_runs import PATTERNS, VARIANTS, Comparison, Crew, Work
from repair_table import NO_REPAIR, PEAK, RIVALS, lead, table
from report import RESULTS, Bar, Report, Row, arguments, at_least, command, finish, measured, prepare, report
from stored import OutOfTime, Store

from vlmc.toolchain import data
from vlmc.toolchain.evaluate.trials import Trial

NAME = "repair"
STORE = Path("build/benchmarks/repair")
PAGE, UNIT = DOCS / "repair.md", "%"
SHARES = {"2:4": 97, "70%": 90}
"""What RESSA must reach at these sparsities, in percent of the dense model's accuracy."""


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser, usual = arguments(__doc__), " ".join(PATTERNS).replace("%", "%%")
    parser.add_argument("--models", nargs="+", default=["demo"], help="which models [default: demo]")
    parser.add_argument("--patterns", nargs="+", help=f"which sparsities [default: {usual}]")
    parser.add_argument("--store", type=Path, default=STORE, help=f"where finished runs are kept [default: {STORE}]")
    parser.add_argument("--steps", type=int, help="steps of every repair [default: the settings' own]")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side [default: 1]")
    parser.add_argument("--minutes", type=float, help="begin no run after so many minutes; start again to go on")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    chosen = parser.parse_args(given)
    if not chosen.table:
        _measure(chosen, command(NAME, given))
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


def filled(text: str, found: Report) -> str:
    """Return the page with its table made anew."""
    return with_table(text, NAME, table(found))


def _measure(chosen: argparse.Namespace, line: str) -> None:
    prepare(chosen)
    work = Work.of(chosen.steps, quick=chosen.quick)
    if chosen.patterns:
        work = Work(**{**vars(work), "patterns": tuple(chosen.patterns)})
    compare(chosen, work, line)


def compare(chosen: argparse.Namespace, work: Work, line: str) -> None:
    """Measure and report every model, or say how far it came when time is over."""
    store = Store.for_minutes(chosen.store, chosen.minutes)
    try:
        if chosen.jobs > 1:
            for model in chosen.models:
                Crew(model, work, store, chosen.jobs, partial(prepare, chosen)).fill()
        found = run(chosen.models, work, store, line, chosen.jobs)
    except OutOfTime:
        sys.exit(
            f"out of time; {len(list(store.folder.glob('*.json')))} runs are stored in {store.folder}: start again to go on"
        )
    finish(found, NAME, chosen)


def run(models: Sequence[str], work: Work, store: Store, line: str, jobs: int = 1) -> Report:
    """Measure every model."""
    rows, bars = [], []
    for model in models:
        found_rows, found_bars = measure_model(Comparison(model, work, store), timed=jobs == 1)
        rows += found_rows
        bars += found_bars
    questions = {split: len(data.load("demo", split, work.questions)) for split in ("validation", "test")}
    settings = {"models": list(models), "questions": questions, "seeds": work.seeds, "patterns": list(work.patterns)}
    steps = {"prune": work.prune.model_dump(mode="json"), "repair": work.repair.model_dump(mode="json")}
    return report(line, rows, bars, {**settings, "jobs": jobs, **steps})


def measure_model(comparison: Comparison, *, timed: bool) -> tuple[list[Row], list[Bar]]:
    """Return one model's rows: learning rates, then pattern by pattern no repair and every method; times; and its bars."""
    work, model = comparison.work, comparison.model
    dense = measured(f"{model}: {DENSE}", ACCURACY, [100 * comparison.dense().accuracy.overall], UNIT)
    rates = {variant: comparison.rate(variant) for variant in VARIANTS}
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
        if pattern in SHARES:
            base = comparison.dense().accuracy.overall
            share = fmean(trial.accuracy.overall for trial in trials["ressa"]) / base if base else 0.0
            bars.append(at_least(f"{model} {pattern}: ressa", SHARES[pattern], 100 * share, "% of dense"))
    return rows + (seconds if timed else []), bars


def bars_of(where: str, trials: Mapping[str, Sequence[Trial]]) -> list[Bar]:
    """Return by how much RESSA's mean is ahead of the methods that it must beat: by more than either's spread."""
    found = {method: [100 * trial.accuracy.overall for trial in made] for method, made in trials.items()}
    spreads = {method: max(values) - min(values) for method, values in found.items()}
    bars = []
    for method in RIVALS:
        ahead, spread = fmean(found["ressa"]) - fmean(found[method]), max(spreads["ressa"], spreads[method])
        goal = f"above {spread:.2f} points, the greater of their spreads"
        bars.append(Bar(lead(where, method), goal, round(ahead, 3), ahead > spread))
    return bars


if __name__ == "__main__":
    main(sys.argv[1:])
