"""Accuracy on the validation split after pruning alone: methods, the tokens they look at, with refit or reconstruction.

Every variant is made from each of several calibration sets, which follow one another in the demo's training questions.
A full run also brings the table in docs/pruning.md up to date; --table does that from the results that are there. With
--methods only those are measured anew; the results then say where and when the others were.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import get_args

from labels import ACCURACY, DEMOS, DENSE
from pages import DOCS, fill, with_table
from report import RESULTS, Report, Row, arguments, command, finish, measured, prepare, report, tenths
from variants import Variants

from vlmc.toolchain import builtin, data
from vlmc.toolchain.settings import PruneMethod, PruneSettings, TokenPolicy

NAME, QUESTIONS, SETS = "prune_methods", 1000, 3
METHODS: dict[PruneMethod, str] = {"wanda": "Wanda", "sparsegpt": "SparseGPT", "admm": "ADMM"}
POLICIES: tuple[TokenPolicy, ...] = get_args(TokenPolicy)
PAGE = DOCS / "pruning.md"


@dataclass(frozen=True)
class Variant:
    """One way to prune."""

    method: PruneMethod
    refit: bool
    reconstruct: bool
    tokens: TokenPolicy

    def __str__(self) -> str:
        return f"{self.label}, {self.tokens} tokens"

    @property
    def label(self) -> str:
        """The method and what follows it, as tables show them."""
        return METHODS[self.method] + " + refit" * self.refit + " + reconstruct" * self.reconstruct


PLAIN = [Variant(method, refit, False, policy) for method, refit, policy in product(METHODS, (False, True), POLICIES)]
TRAINED = [Variant(method, False, True, "all") for method in METHODS]
VARIANTS = [*PLAIN, *TRAINED]


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(DEMOS), help="which models [default: both demos]")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="which methods [default: all]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    chosen = parser.parse_args(given)
    if not chosen.table:
        _measure(chosen, command(NAME, given))
    if chosen.table or not (chosen.quick or chosen.out):
        found = Report.read(RESULTS / f"{NAME}.json")
        fill(PAGE, NAME, table(found))


def _measure(chosen: argparse.Namespace, line: str) -> None:
    prepare(chosen)
    base, questions, sets = (PruneSettings(calibration=8), 20, 1) if chosen.quick else (PruneSettings(), QUESTIONS, SETS)
    found = run(chosen.models, base, questions, sets, line, chosen.methods)
    if set(chosen.methods) != set(METHODS) and not chosen.quick:
        found = renewed(Report.read(RESULTS / f"{NAME}.json"), found, chosen.methods)
    finish(found, NAME, chosen)


def renewed(earlier: Report, found: Report, methods: Sequence[str]) -> Report:
    """Return a report with earlier rows where nothing was measured anew; its settings say where and when they come from.

    Raises:
        SystemExit: the earlier report was not measured in the same way.
    """
    same = {name: value for name, value in earlier.settings.items() if name != "earlier"}
    if same != found.settings:
        raise SystemExit("the earlier results were measured with other settings: measure all methods")
    anew = {(row.name, row.metric): row for row in found.rows}
    rows = [anew.get((row.name, row.metric), row) for row in earlier.rows]
    others = [label for method, label in METHODS.items() if method not in methods]
    origin = {"methods": others, "machine": earlier.machine, "date": earlier.date, "command": earlier.command}
    return replace(found, rows=rows, settings={**found.settings, "earlier": origin})


def run(
    models: Sequence[str],
    base: PruneSettings,
    questions: int,
    sets: int,
    line: str,
    methods: Sequence[str] = tuple(METHODS),
) -> Report:
    """Prune and question every model in every way that is made of these methods."""
    with TemporaryDirectory() as folder:
        files = calibration_sets(Path(folder) / "sets", sets, base.calibration)
        variants = [variant for variant in VARIANTS if variant.method in methods]
        rows = [row for model in models for row in try_all(model, variants, base, questions, files)]
    settings = {"models": list(models), "split": "validation", "questions": questions, "calibration_sets": sets}
    varied = {*Variant.__dataclass_fields__, "data"}
    return report(line, rows, [], {**settings, "prune": base.model_dump(mode="json", exclude=varied)})


def calibration_sets(folder: Path, sets: int, size: int) -> list[str]:
    """Write the first training questions as files of `size` each; the first of them is what `--data demo` calibrates on."""
    lines = (
        builtin.data_sets()["demo"].write(folder, "train", sets * size).read_text(encoding="utf-8").splitlines(keepends=True)
    )
    files = [folder / f"{number}.jsonl" for number in range(sets)]
    for number, file in enumerate(files):
        file.write_text("".join(lines[number * size : (number + 1) * size]), encoding="utf-8")
    return [str(file) for file in files]


def try_all(model: str, variants: Sequence[Variant], base: PruneSettings, questions: int, files: Sequence[str]) -> list[Row]:
    """Return one model's rows: the accuracy of the variants beside the dense model's."""
    samples = list(data.load("demo", "validation", questions))

    def tried(variant: Variant, file: str) -> float:
        with TemporaryDirectory() as scratch:
            options = base.model_copy(update={**vars(variant), "data": file})
            _, trial = Variants(model, samples, Path(scratch)).pruned(options)
        return 100 * trial.accuracy.overall

    with TemporaryDirectory() as scratch:
        whole = Variants(model, samples, Path(scratch)).dense().accuracy.overall
    rows = [measured(f"{model}: {DENSE}", ACCURACY, [100 * whole], "%")]
    for variant in variants:
        rows.append(measured(f"{model}: {variant}", ACCURACY, [tried(variant, file) for file in files], "%", rows[0]))
        print(f"{model}, {variant}: {rows[-1].value:.1f} %", file=sys.stderr, flush=True)
    return rows


def filled(text: str, found: Report) -> str:
    """Return the page with its table made anew."""
    return with_table(text, NAME, table(found))


def table(found: Report) -> str:
    """Return a table for each model, methods down, tokens across, and where the figures come from."""
    head = (
        f"Right answers to {found.settings['questions']:,} validation questions, vision and language pruned to "
        f"{found.settings['prune']['target']}, not repaired: the mean over {found.settings['calibration_sets']} calibration "
        f"sets of {found.settings['prune']['calibration']} samples each and, in brackets, the spread."
    )
    tables = [_model_table(found, model) for model in found.settings["models"]]
    where = f"Measured on {found.machine}, {found.date}: `{found.command}`."
    if earlier := found.settings.get("earlier"):
        others = " and ".join(earlier["methods"])
        where += f" The lines of {others} are from {earlier['machine']}, {earlier['date']}: `{earlier['command']}`."
    return "\n\n".join([head, *tables, where])


def _model_table(found: Report, model: str) -> str:
    def value(name: str) -> float:
        measure = found.value(f"{model}: {name}", ACCURACY)
        assert measure is not None
        return measure

    def cell(name: str) -> str:
        row = found.find(f"{model}: {name}", ACCURACY)
        return f"{tenths(value(name))} %" + ("" if row is None or row.spread is None else f" ({tenths(row.spread)})")

    lines = [
        f"| `{model}`, dense {cell(DENSE)} | {' | '.join(f'`--tokens {policy}`' for policy in POLICIES)} |",
        "|---|" + "---:|" * len(POLICIES),
    ]
    for start in range(0, len(PLAIN), len(POLICIES)):
        row = PLAIN[start : start + len(POLICIES)]
        lines.append(f"| {row[0].label} | {' | '.join(cell(str(one)) for one in row)} |")
    means = [fmean(value(str(one)) for one in PLAIN if one.tokens == policy) for policy in POLICIES]
    lines.append(f"| mean of the {len(lines) - 2} | {' | '.join(f'{tenths(mean)} %' for mean in means)} |")
    lines += [f"| {one.label} | {cell(str(one))} |" + " |" * (len(POLICIES) - 1) for one in TRAINED]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
