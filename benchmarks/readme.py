"""Write the README's tables, and docs/quality.png, from benchmarks/results; --check says whether they are stale.

A table stands between `<!-- table: NAME -->` and `<!-- end -->` and is read from benchmarks/results/NAME.json.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cpu24_table
from labels import ACCURACY, DENSE, REMASKED, RESSA, STARTS
from plot import draw, is_current
from repair_table import verdict
from report import RESULTS, Report, Row, targets, tenths

from vlmc.runtime.artifact.texts import write_text
from vlmc.runtime.errors import CheckFailed, InputError, VlmcError

ROOT = RESULTS.parent.parent
PICTURE = Path("docs/quality.png")
MARK = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main(given: Sequence[str]) -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of the README [default: the repository]")
    chosen = parser.parse_args(given)
    try:
        (check if chosen.check else write)(chosen.root)
    except VlmcError as error:
        print(f"readme: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def check(root: Path) -> None:
    """Hold README and picture against the results.

    Raises:
        CheckFailed: one of them is stale.
        InputError: a table's results are missing, or cannot be read.
    """
    text = (root / "README.md").read_text(encoding="utf-8")
    if filled(text, root) != text:
        raise CheckFailed("README.md is not what benchmarks/results say: run python benchmarks/readme.py")
    source = _results(root, "quality")
    if source.is_file() and not is_current(root / PICTURE, source):
        raise CheckFailed(f"{PICTURE} was not drawn from {source.name}: run python benchmarks/readme.py")


def write(root: Path) -> None:
    """Bring README and picture up to date."""
    text = (root / "README.md").read_text(encoding="utf-8")
    write_text(root / "README.md", filled(text, root))
    source = _results(root, "quality")
    if source.is_file() and not is_current(root / PICTURE, source):
        draw(Report.read(source), source, root / PICTURE)


def filled(text: str, root: Path) -> str:
    """Return the README's text with every table made anew."""
    if text.count("<!-- table:") != len(MARK.findall(text)):
        raise InputError("README.md has a '<!-- table: NAME -->' without its '<!-- end -->'")
    return MARK.sub(lambda found: f"{found[1]}\n{_table(found[2], root)}\n\n{found[4]}", text)


def _results(root: Path, name: str) -> Path:
    return root / "benchmarks" / "results" / f"{name}.json"


def _table(name: str, root: Path) -> str:
    if name not in TABLES:
        raise InputError(f"README.md asks for a table {name}: there are {', '.join(TABLES)}")
    path = _results(root, name)
    if not path.is_file():
        raise InputError(f"README.md shows {path.relative_to(root)}, which is missing: run the benchmark")
    try:
        return TABLES[name](Report.read(path))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path.relative_to(root)} cannot be read ({type(error).__name__}: {error})") from None


def quality(found: Report) -> str:
    """Return a table for each model: pruners down, repairs across."""
    seeds, questions = found.settings["seeds"], found.settings["questions"]
    repeats = f"; repaired: mean of {seeds} seeds and, in brackets, their spread" if seeds > 1 else ""
    head = (
        f"Right answers to {questions:,} test questions, vision and language pruned, to 2:4 where nothing is said{repeats}."
    )
    tables = [_model_table(found, model) for model in found.settings["models"]]
    return "\n\n".join([head, *tables, f"![the same accuracies as bars]({PICTURE})", targets(found), _origin(found)])


def _model_table(found: Report, model: str) -> str:
    lines = [
        f"| `{model}` | without repair | with {RESSA} | with {RESSA}, of dense | {REMASKED} |",
        "|---|---:|---:|---:|---:|",
        f"| {DENSE} | {_cell(found.find(f'{model}: {DENSE}', ACCURACY))} | | | |",
    ]
    for label in STARTS:
        names = (f"{model}: {label}", f"{model}: {label} + {RESSA}", f"{model}: {label} + {REMASKED}")
        pruned, repaired, remasked = (found.find(name, ACCURACY) for name in names)
        lines.append(f"| {label} | {_cell(pruned)} | {_cell(repaired)} | {_share(repaired)} | {_cell(remasked)} |")
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None or row.value is None:
        return ""
    return f"{tenths(row.value)} %" + ("" if row.spread is None else f" ({tenths(row.spread)})")


def _share(row: Row | None) -> str:
    return "" if row is None or row.ratio is None else f"{tenths(100 * row.ratio)} %"


def _origin(found: Report) -> str:
    return f"Measured on {found.machine}, {found.date}: `{found.command}`."


TABLES: dict[str, Callable[[Report], str]] = {
    "quality": quality,
    "repair": verdict,
    "cpu24_decoders": cpu24_table.verdict,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
