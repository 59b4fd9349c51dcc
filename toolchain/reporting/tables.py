"""Tables, printed to stdout."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmc.exporters import BACKENDS, resolve
from vlmc.runtime.errors import shortened
from vlmc.runtime.reports import LayerReport

LONGEST = 2000  # characters of a cell
LAYOUTS = {"triton": "Triton Inference Server", "genai": "onnxruntime-genai"}
"""The programs that an export's layouts are for; each has a folder of the layout's name in the artifact."""


def show_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a plain table: the first column left-aligned, the others right-aligned."""
    head, *lines = [[shortened(str(cell), LONGEST) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    for line in [head, ["-" * width for width in widths], *lines]:
        cells = [
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def show_reports(reports: Sequence[LayerReport], damaged: Sequence[str] = ()) -> None:
    """Print the verification, one layer per line, what else is `damaged`, and the verdict."""
    rows = [
        (r.layer, r.part, r.pattern, f"{r.rows} x {r.columns}", percent(r.sparsity), r.violation or "holds") for r in reports
    ]
    show_table(("layer", "part", "pattern", "shape", "zeros", "verdict"), rows)
    for line in damaged:
        print(line)
    broken = sum(report.violation is not None for report in reports)
    dense = sum((report.violation or "").startswith("dense") for report in reports)
    print(f"{len(reports) - broken} of {len(reports)} layers hold" + (f"; {dense} are dense" if dense else ""))


def show_accuracies(found: Mapping[str, Any]) -> None:
    """Print accuracies, one row per kind of question, one column per model, and the pruned model's from repair."""
    before = found.get("pruned")
    head, *lines = accuracy_rows(found, before)
    show_table(head, lines)
    if before is not None:
        print(f"the pruned model was measured by repair, on {asked(before)}")


def accuracy_rows(found: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """Return the table of an evaluation: header, a row for each kind of question, overall; with repair's pruned model."""
    models = found["models"]
    kinds = list(next(iter(models.values()))["by_kind"])
    rows = [(kind, *(percent(model["by_kind"][kind]) for model in models.values())) for kind in kinds]
    overall = ("overall", *(percent(model["overall"]) for model in models.values()))
    return with_pruned([(f"{found['count']} questions, {metric_of(found)}", *models), *rows, overall], before)


def with_pruned(rows: list[tuple[str, ...]], before: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """Return a table of accuracies, header first and overall last, with a column for the pruned model after the dense one.

    The column gives its own number of questions: repair measured it, on other questions.
    """
    if before is None:
        return rows
    name, by_kind = f"pruned ({before['count']} {before['split'] or 'other'} questions)", before.get("by_kind", {})
    kinds = [percent(by_kind[row[0]]) if row[0] in by_kind else "-" for row in rows[1:-1]]
    column = [name, *kinds, percent(before["overall"])]
    place = 2 if rows[0][1] == "dense" else 1
    return [(*row[:place], cell, *row[place:]) for row, cell in zip(rows, column, strict=True)]


TITLES = {"exact": "exact match", "vqa": "VQA accuracy", "cider": "CIDEr", "anls": "ANLS"}
"""What people call a metric."""


def metric_of(found: Mapping[str, Any]) -> str:
    """Return the name of an evaluation's metric; older ones have exact match."""
    return TITLES[found.get("metric", "exact")]


def asked(found: Mapping[str, Any]) -> str:
    """Return the questions that an accuracy was measured on, such as `128 questions of demo (validation)`."""
    split = f" ({found['split']})" if found["split"] else ""
    return f"{found['count']} questions of {found['data']}{split}"


def show_study(found: Mapping[str, Any], folder: Path) -> None:
    """Print a split study, one row per variant, what was skipped, and where the results and figures are."""
    rows = [
        (
            f"{row['name']} of {row['group']}" if row["study"] == "split" else f"{row['group']} {row['name']}".strip(),
            *(row["vision"], row["language"], percent(row["sparsity"]), percent(row["accuracy"])),
            "-" if row["relative"] is None else percent(row["relative"]),
        )
        for row in found["rows"]
    ]
    show_table((f"{found['questions']} questions", "vision", "language", "zeros", "right", "of dense"), rows)
    for note in found["skipped"]:
        print(f"skipped: {note}")
    print(f"results and figures: {folder}")


def show_export(found: Mapping[str, Any], made: Path | None = None) -> None:
    """Print an export's report in its backend's tables, and the folder of a layout that was made for another program."""
    for number, table in enumerate(resolve(BACKENDS[found["backend"]].tables)(found)):
        if number:
            print()
        show_table(table.header, table.rows)
        for note in table.notes:
            print(note)
    if made is not None:
        print(f"for {LAYOUTS[made.name]}: {shortened(str(made))}")


def percent(fraction: float) -> str:
    """Format a fraction as a percentage with one decimal."""
    return f"{100 * fraction:.1f} %"


def megabytes(count: int) -> str:
    """Format a number of bytes in MB (10^6)."""
    return f"{count / 1e6:.2f} MB"
