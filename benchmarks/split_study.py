"""The split study on the demos, `vlmc sweep MODEL`, repeated on further calibration sets; nothing is repaired.

A full run also brings the tables in docs/sweep.md up to date, and its figures: those of the first model on the first set,
which are what `vlmc sweep MODEL` draws. --table writes the tables alone, from the results that are there.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from labels import ACCURACY, DEMOS, DENSE
from pages import fill, with_table
from prune_methods import calibration_sets
from report import RESULTS, Report, arguments, command, finish, measured, prepare, report, tenths
from report import Row as Measure

from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import SweepSettings
from vlmc.toolchain.study import Plan, Record, Row, SplitStudy, Variant
from vlmc.toolchain.study.figures import SPLIT, TOWERS, WHERE

NAME, SETS, ZEROS = "split_study", 3, "zeros among prunable weights"
PAGE = RESULTS.parent.parent / "docs" / "sweep.md"


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(DEMOS), help="which models [default: both demos]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's tables from the results")
    chosen = parser.parse_args(given)
    page = chosen.table or not (chosen.quick or chosen.out)
    if not chosen.table:
        _measure(chosen, command(NAME, given), PAGE.parent if page else None)
    if page:
        found = Report.read(RESULTS / f"{NAME}.json")
        fill(PAGE, NAME, tables(found))


def _measure(chosen: argparse.Namespace, line: str, pictures: Path | None) -> None:
    prepare(chosen)
    quick = SweepSettings(shares="60:40,40:60", calibration=8, count=20)
    base, sets = (quick, 1) if chosen.quick else (SweepSettings(), SETS)
    finish(run(chosen.models, base, sets, line, pictures), NAME, chosen)


def run(models: Sequence[str], base: SweepSettings, sets: int, line: str, pictures: Path | None = None) -> Report:
    """Do the study of every model on every calibration set; the first model's figures go into the folder `pictures`."""
    rows: list[Measure] = []
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        others = calibration_sets(scratch / "sets", sets, base.calibration)[1:]
        for model in models:
            records = [_study(model, base, scratch / "out")]  # by itself it calibrates on the first set
            if pictures is not None and model == models[0]:
                for name in (SPLIT, WHERE):
                    shutil.copyfile(scratch / "out" / name, pictures / name)
            further = (base.model_copy(update={"calibration_data": file}) for file in others)
            records += [_study(model, options, scratch / "out") for options in further]
            rows += rows_of(model, records)
    settings = {"models": list(models), "questions": records[0].questions, "calibration_sets": sets}
    return report(line, rows, [], {**settings, "sweep": base.model_dump(mode="json")})


def _study(model: str, options: SweepSettings, folder: Path) -> Record:
    record = SplitStudy(options).run(SavedModel.find(model), folder, force=True)
    for row in record.rows:
        print(f"{model}, {name_of(row)}: {100 * row.accuracy:.1f} %", file=sys.stderr, flush=True)
    return record


def rows_of(model: str, records: Sequence[Record]) -> list[Measure]:
    """Return one model's rows: every variant's accuracy beside the dense model's, and how many weights it lost."""
    rows: list[Measure] = []
    for same in zip(*(record.rows for record in records), strict=True):
        name, accuracies = f"{model}: {name_of(same[0])}", [100 * row.accuracy for row in same]
        if same[0].study == "dense":
            rows.append(measured(name, ACCURACY, accuracies[:1], "%"))
        else:
            rows.append(measured(name, ACCURACY, accuracies, "%", rows[0]))
            rows.append(measured(name, ZEROS, [100 * same[0].sparsity], "%"))
    return rows


def name_of(row: Row | Variant) -> str:
    """Return what a variant's rows are called."""
    return f"{row.name}, {row.group}" if row.group else DENSE


def filled(text: str, found: Report) -> str:
    """Return the page with its tables made anew."""
    return with_table(text, NAME, tables(found))


def tables(found: Report) -> str:
    """Return two tables for each model, and where their figures come from."""
    options = SweepSettings(**found.settings["sweep"])
    sets, samples = found.settings["calibration_sets"], options.calibration
    head = (
        f"Right answers to {found.settings['questions']:,} {options.split} questions, pruned by `{options.method}`, not "
        f"repaired: the mean over {sets} calibration sets of {samples} samples each and, in brackets, the spread. Zeros are "
        "those among the weights that could be pruned, of both towers."
    )
    plan, corners = Plan.of(options), {"split": "vision : language", "where": "pruned"}
    parts = [
        _table(found, model, plan, study, corner) for model in found.settings["models"] for study, corner in corners.items()
    ]
    return "\n\n".join([head, *parts, f"Measured on {found.machine}, {found.date}: `{found.command}`."])


def _table(found: Report, model: str, plan: Plan, study: str, corner: str) -> str:
    """Return one study's table: names down, groups across."""
    variants = [variant for variant in plan.variants if variant.study == study]
    names, groups = (list(dict.fromkeys(getattr(one, field) for one in variants)) for field in ("name", "group"))
    known = {(variant.name, variant.group): _cells(found, model, variant) for variant in variants}
    of = "sum " if study == "split" else ""
    lines = [
        f"| `{model}`, dense {tenths(found.value(f'{model}: {DENSE}', ACCURACY) or 0)} %: {corner} | "
        + " | ".join(f"{of}{group} | zeros" for group in groups)
        + " |",
        "|---|" + "---:|---:|" * len(groups),
    ]
    for name in names:
        cells = (known.get((name, group), "skipped | ") for group in groups)
        lines.append(f"| {TOWERS[name][0] if name in TOWERS else name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(found: Report, model: str, variant: Variant) -> str:
    name = f"{model}: {name_of(variant)}"
    accuracy, zeros = found.find(name, ACCURACY), found.value(name, ZEROS)
    assert accuracy is not None
    assert accuracy.value is not None
    assert zeros is not None
    spread = "" if accuracy.spread is None else f" ({tenths(accuracy.spread)})"
    return f"{tenths(accuracy.value)} %{spread} | {tenths(zeros)} %"


if __name__ == "__main__":
    main(sys.argv[1:])
