"""Accuracy on the validation split after pruning alone: methods, the tokens they look at, without and with refit.

A full run also brings the table in docs/pruning.md up to date; --table does that from the results that are there.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from labels import ACCURACY, DENSE
from report import RESULTS, Report, Row, arguments, command, finish, measured, prepare, report, tenths
from variants import Variants

from vlmc.runtime.artifact.writing import write_text
from vlmc.toolchain import data
from vlmc.toolchain.demo.checkpoints import NAMES
from vlmc.toolchain.settings import PruneMethod, PruneSettings, TokenPolicy

NAME, QUESTIONS = "prune_methods", 1000
METHODS: dict[PruneMethod, str] = {"wanda": "Wanda", "sparsegpt": "SparseGPT", "admm": "ADMM"}
POLICIES: tuple[TokenPolicy, ...] = get_args(TokenPolicy)
PAGE = RESULTS.parent.parent / "docs" / "pruning.md"
MARK = re.compile(rf"(<!-- table: {NAME} -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Variant:
    """One way to prune."""

    method: PruneMethod
    refit: bool
    tokens: TokenPolicy

    def __str__(self) -> str:
        return f"{label(self.method, self.refit)}, {self.tokens} tokens"


VARIANTS = [Variant(*chosen) for chosen in product(METHODS, (False, True), POLICIES)]


def label(method: PruneMethod, refit: bool) -> str:
    """Return a method's name as tables show it."""
    return METHODS[method] + (" + refit" if refit else "")


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(NAMES), help="which models [default: both demos]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    chosen = parser.parse_args(given)
    if not chosen.table:
        _measure(chosen, command(NAME, given))
    if chosen.table or not (chosen.quick or chosen.out):
        found = Report.read(RESULTS / f"{NAME}.json")
        write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), found))


def _measure(chosen: argparse.Namespace, line: str) -> None:
    prepare(chosen)
    base, questions = (PruneSettings(calibration=8), 20) if chosen.quick else (PruneSettings(), QUESTIONS)
    finish(run(chosen.models, base, questions, line), NAME, chosen)


def run(models: Sequence[str], base: PruneSettings, questions: int, line: str) -> Report:
    """Prune and question every model in every way."""
    rows = [row for model in models for row in try_all(model, base, questions)]
    settings = {"models": list(models), "split": "validation", "questions": questions}
    varied = set(Variant.__dataclass_fields__)
    return report(line, rows, [], {**settings, "prune": base.model_dump(mode="json", exclude=varied)})


def try_all(model: str, base: PruneSettings, questions: int) -> list[Row]:
    """Return one model's rows: the accuracy of every variant beside the dense model's."""
    samples = list(data.load("demo", "validation", questions))
    with TemporaryDirectory() as scratch:
        whole = Variants(model, samples, Path(scratch)).dense().accuracy.overall
    rows = [measured(f"{model}: {DENSE}", ACCURACY, [100 * whole], "%")]
    for variant in VARIANTS:
        with TemporaryDirectory() as scratch:
            _, trial = Variants(model, samples, Path(scratch)).pruned(base.model_copy(update=vars(variant)))
        rows.append(measured(f"{model}: {variant}", ACCURACY, [100 * trial.accuracy.overall], "%", rows[0]))
        print(f"{model}, {variant}: {rows[-1].value:.1f} %", file=sys.stderr, flush=True)
    return rows


def filled(text: str, found: Report) -> str:
    """Return the page with its table made anew."""
    return MARK.sub(lambda mark: f"{mark[1]}\n{table(found)}\n\n{mark[3]}", text)


def table(found: Report) -> str:
    """Return a table for each model, methods down, tokens across, and where the figures come from."""
    head = (
        f"Right answers to {found.settings['questions']:,} validation questions, vision and language pruned to "
        f"{found.settings['prune']['target']} on {found.settings['prune']['calibration']} samples, not repaired."
    )
    tables = [_model_table(found, model) for model in found.settings["models"]]
    return "\n\n".join([head, *tables, f"Measured on {found.machine}, {found.date}: `{found.command}`."])


def _model_table(found: Report, model: str) -> str:
    def cell(name: str) -> str:
        value = found.value(f"{model}: {name}", ACCURACY)
        assert value is not None
        return f"{tenths(value)} %"

    lines = [
        f"| `{model}`, dense {cell(DENSE)} | {' | '.join(f'`--tokens {policy}`' for policy in POLICIES)} |",
        "|---|" + "---:|" * len(POLICIES),
    ]
    for method, refit in product(METHODS, (False, True)):
        cells = (cell(str(Variant(method, refit, policy))) for policy in POLICIES)
        lines.append(f"| {label(method, refit)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
