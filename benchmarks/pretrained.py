"""What 2:4 costs a model that knows language, and what repair gives back: `smol`, around the pretrained SmolLM2-135M.

It is pruned in one shot by every method, by three also with plain text among the calibration data. It is repaired by every
method from Wanda's result and from the best one, under one budget of steps and samples; then at other learning rates, with
plain text mixed into the data, three times as long too, and with and without a teacher on few and many samples, clean and a
fifth labelled wrong.

Measured are exact answers to test questions, the perplexity of their answers, and
that of plain text that no repair trains on: what repair forgets. SmolLM2's weights here come from a 4-bit file.

Every finished run is stored at once and not done again: the benchmark may be killed, or cut by --minutes, and started again.
What is not done yet when --minutes are over is left out of the results. `vlmc fetch smol` comes first.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from labels import DENSE
from pages import DOCS, fill
from pretraining.measures import ANSWERS, TEXT
from pretraining.runs import CLEAN, MIXED, OTHER_RATES, REPAIRS, STARTS, WRONG, Runs, Work
from report import RESULTS, Bar, Report, Row, arguments, at_least, command, finish, measured, prepare, report, targets
from stored import Found, OutOfTime, Store

NAME, PAGE = "pretrained", DOCS / "smol.md"
STORE = Path("build/benchmarks/pretrained")
WEAK, WEAK_TEXTED, QUICK, BEST, TEXTED, RESSA, REMASKED, ALONE = (
    "Wanda",
    "Wanda, text in calibration",
    "ADMM",
    "ADMM, reconstructed",
    "ADMM, reconstructed, text in calibration",
    "RESSA",
    "LoRA merged and re-masked",
    "RESSA, no teacher",
)
LONGER = 3
SAMPLES = (500, 2_000, 10_000)
SEEDS = 3
ACCURACY, KIND = "accuracy", "accuracy, {}"
TESTS: dict[str, Callable[[Found], float]] = {
    ACCURACY: lambda found: 100 * found["right"]["all"],
    ANSWERS: lambda found: found[ANSWERS],
    TEXT: lambda found: found[TEXT],
}
UNITS = {ACCURACY: "%", ANSWERS: "", TEXT: ""}
Results = dict[str, list[Found]]
"""What was found, by the name of its rows, seed by seed."""


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    usual, parser = Work(), arguments(__doc__)
    parser.add_argument("--model", default=usual.model, help="a folder or name of such a model [default: smol]")
    parser.add_argument("--store", type=Path, default=STORE, help=f"where finished runs are kept [default: {STORE}]")
    parser.add_argument("--minutes", type=float, help="begin no run after so many minutes, and report what is done")
    parser.add_argument("--questions", type=int, help=f"test questions [default: {usual.questions}]")
    parser.add_argument("--steps", type=int, help=f"steps of a repair [default: {usual.steps}]")
    parser.add_argument("--precision", default=usual.precision, choices=("fp32", "bf16"), help="of the products of a repair")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"repairs of each kind [default: {SEEDS}]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    chosen = parser.parse_args(given)
    prepare(chosen)
    if not chosen.table:
        finish(run(chosen, command(NAME, given)), NAME, chosen)
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


def work_of(chosen: argparse.Namespace) -> Work:
    """Return how much is done; `--quick`: as little as leaves every row in place."""
    usual = Work(chosen.model, threads=chosen.threads, precision=chosen.precision)
    if chosen.quick:
        return replace(usual, questions=7, calibration=1, steps=1, batch=2, samples=10)
    return replace(usual, questions=chosen.questions or usual.questions, steps=chosen.steps or usual.steps)


def run(chosen: argparse.Namespace, line: str) -> Report:
    """Do all runs, in the order of what they tell, until the time is over."""
    work = work_of(chosen)
    runs = Runs(work, Store.for_minutes(chosen.store, chosen.minutes))
    plan = list(_plan(runs, chosen.seeds, (4, 6) if chosen.quick else SAMPLES))
    results: Results = {one.name: [] for one in plan}
    missing = 0
    for one in sorted(plan, key=lambda one: one.turn):
        try:
            found = one.do()
        except OutOfTime:  # later ones may be done already
            missing += 1
            continue
        results[one.name].append(found)
        print(f"{one.name}: {100 * found['right']['all']:.1f} %, text {found[TEXT]:.1f}", file=sys.stderr, flush=True)
    if missing:
        print(f"out of time, {missing} runs are missing; {chosen.store} has the others: start again", file=sys.stderr)
    results = {name: found for name, found in results.items() if found}
    settings = {**vars(work), "seeds": chosen.seeds, "model": Path(work.model).name}
    return report(line, rows_of(results), bars_of(results), settings)


@dataclass(frozen=True)
class Planned:
    """A run: the name of its row, and when it has its turn."""

    name: str
    turn: int
    do: Callable[[], Found]


def _plan(runs: Runs, seeds: int, samples: Sequence[int]) -> Iterator[Planned]:
    """Yield every run, in the order of the rows; what tells most has its turn first."""
    yield Planned(DENSE, 0, runs.dense)
    for start in STARTS:
        yield Planned(start, 0 if start in (WEAK, WEAK_TEXTED, QUICK, BEST, TEXTED) else 3, partial(runs.pruned, start))
    for seed in range(seeds):
        yield Planned(f"{TEXTED} + {RESSA}, {MIXED}", 1 if seed == 0 else 6, _repair(runs, TEXTED, RESSA, seed, MIXED))
        yield Planned(f"{QUICK} + {RESSA}", 1 if seed == 0 else 6, _repair(runs, QUICK, RESSA, seed))
        for turn, start in enumerate((BEST, WEAK), 1):
            for repair in (repair for repair in REPAIRS if repair not in OTHER_RATES):
                soon = seed == 0 or (start == BEST and repair in (RESSA, REMASKED))  # what a target compares
                yield Planned(f"{start} + {repair}", turn if soon else 6, _repair(runs, start, repair, seed))
        yield Planned(f"{BEST} + {RESSA}, {MIXED}", 4 if seed == 0 else 6, _repair(runs, BEST, RESSA, seed, MIXED))
    longer = f"{TEXTED} + {RESSA}, {MIXED}, {LONGER} times the steps"
    yield Planned(longer, 4, partial(runs.repaired, TEXTED, RESSA, 0, MIXED, steps=LONGER * runs.work.steps))
    for repair in OTHER_RATES:
        yield Planned(f"{BEST} + {repair}", 2, _repair(runs, BEST, repair, 0))
    for count in samples:
        for labels in (CLEAN, WRONG):
            for repair in (RESSA, ALONE):
                name = f"{WEAK} + {repair}, {count:,} samples{f', {labels}' if labels else ''}"
                yield Planned(name, 5, _repair(runs, WEAK, repair, 0, labels, count))


def _repair(runs: Runs, start: str, repair: str, seed: int, *more: Any) -> Callable[[], Found]:
    return lambda: runs.repaired(start, repair, seed, *more)


def rows_of(results: Results) -> list[Row]:
    """Return the rows: accuracy and perplexities beside the dense model's, then kinds of questions, seconds and memory."""
    rows: list[Row] = []
    base: dict[str, Row] = {}
    for name, found in results.items():
        for metric, value in TESTS.items():
            row = measured(name, metric, [value(one) for one in found], UNITS[metric], base.get(metric))
            base.setdefault(metric, row)
            rows.append(row)
    for name, found in results.items():
        kinds = [kind for kind in found[0]["right"] if kind != "all"]
        rows += [measured(name, KIND.format(kind), [100 * one["right"][kind] for one in found], "%") for kind in kinds]
        for step in ("prune", "repair"):
            if step in found[0]:
                rows.append(measured(name, f"time to {step}", [one[step]["seconds"] for one in found], "s"))
                rows.append(measured(name, f"peak memory, {step}", [one[step]["peak"] / 1e6 for one in found], "MB"))
    return rows


def bars_of(results: Results) -> list[Bar]:
    """Return what is asked, as far as it was measured."""
    bars, means = (
        [],
        {name: {metric: fmean(map(of, found)) for metric, of in TESTS.items()} for name, found in results.items()},
    )
    if DENSE not in means:
        return []
    dense, best = means[DENSE], f"{BEST} + {RESSA}"
    for start, weak in ((BEST, WEAK), (TEXTED, WEAK_TEXTED)):  # calibrated on the same
        if start in means and weak in means:
            share = (means[start][TEXT] - dense[TEXT]) / (means[weak][TEXT] - dense[TEXT])
            name = f"excess of text perplexity in one shot, {start}, to that of {weak}"
            bars.append(Bar(name, "at most 0.15 x", round(share, 3), share <= 0.15))
    if best in means and dense[ACCURACY]:
        bars.append(at_least(f"{best} of dense accuracy", 92, 100 * means[best][ACCURACY] / dense[ACCURACY], "%"))
    for repaired in (best, f"{TEXTED} + {RESSA}, {MIXED}"):
        if repaired in means:
            times = means[repaired][TEXT] / dense[TEXT]
            bars.append(Bar(f"{repaired}: text perplexity to dense", "at most 1.3 x", round(times, 3), times <= 1.3))
    for start in (BEST, WEAK):  # little damage and much
        bars += _lead(f"{start} + {RESSA}", f"{start} + {REMASKED}", results)
    return bars


def _lead(own: str, rival: str, results: Results) -> list[Bar]:
    """Return how far one repair is ahead of another in accuracy, beside the spread of their seeds, if there are several."""
    first, second = ([TESTS[ACCURACY](one) for one in results.get(name, [])] for name in (own, rival))
    if min(len(first), len(second)) < 2:
        return []
    lead, spread = fmean(first) - fmean(second), max(max(values) - min(values) for values in (first, second))
    goal = f"above {spread:.1f} points, the spread of {min(len(first), len(second))} seeds"
    return [Bar(f"lead of {own} over {rival}", goal, round(lead, 3), lead > spread)]


def table(found: Report) -> str:
    """Return the results in Markdown."""
    names = dict.fromkeys(row.name for row in found.rows)
    lines = [f"| | {ACCURACY} | {ANSWERS} | {TEXT} | prune, repair |", "|---|---:|---:|---:|---:|"]
    for name in names:
        values = [found.find(name, metric) for metric in TESTS]
        seconds = [found.value(name, f"time to {step}") for step in ("prune", "repair")]
        told = ", ".join(f"{value:,.0f} s" for value in seconds if value is not None)
        lines.append(f"| {name} | {' | '.join(_cell(row) for row in values)} | {told} |")
    where = f"In brackets the spread over seeds. Measured on {found.machine}, {found.date}: `{found.command}`."
    return "\n\n".join(["\n".join(lines), targets(found), where])


def _cell(row: Row | None) -> str:
    if row is None or row.value is None:
        return ""
    text = f"{row.value:,.1f}{' %' if row.unit == '%' else ''}"
    return text if row.spread is None else f"{text} ({row.spread:.1f})"


if __name__ == "__main__":
    main(sys.argv[1:])
