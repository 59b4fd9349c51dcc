"""Memory of `vlmc prune`, `merge` and `eval` on a LLaVA with random weights in bfloat16.

`prune` runs under a limit of half the model's size: a control group's, which counts the page cache too. Where none can be
made (it takes root on Linux), a row says that the run was not limited. The rows of `merge` and `eval` are in
streaming_merge.py. Each of the two subjects has results and a table of its own; `--only` measures one.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import streaming_merge
from large import Size, write_llava
from pages import DOCS, fill
from processes import Spent, spend
from report import RESULTS, Bar, Report, Row, arguments, command, finish, measured, prepare, report

from vlmc.toolchain import builtin

NAME, PAGE = "streaming", DOCS / "pruning.md"
SHARE = 0.25  # of the model's size that may be resident beside what one block needs
VARIANTS: dict[str, tuple[str, ...]] = {
    "Wanda": ("--method", "wanda"),
    "Wanda, activations on disk": ("--method", "wanda", "--spill"),
    "SparseGPT": ("--method", "sparsegpt"),
}
FULL = Size(hidden=2048, inner=5632, blocks=40, vision_blocks=3, rows=32_000)
QUICK = Size(hidden=256, inner=704, blocks=3, vision_blocks=2, rows=2_000)

QUICK_LIMIT = 2_000_000_000


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--calibration", type=int, default=32, help="calibration samples [default: 32; 4 if --quick]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    parser.add_argument("--only", choices=["prune", "merge"], help="measure one subject [default: both]")
    parser.add_argument("--blocks", type=int, help="language blocks of the model that is merged [default: 20]")
    parser.add_argument("--scratch", type=Path, help="where to put the models [default: the system's folder for such]")
    chosen = parser.parse_args(given)
    if chosen.out and not chosen.only:
        parser.error("--out takes the results of one subject: add --only")
    prepare(chosen)
    if chosen.only != "merge":
        _measure(chosen, given, NAME, run, PAGE, table)
    if chosen.only != "prune":
        _measure(chosen, given, streaming_merge.NAME, streaming_merge.run, streaming_merge.PAGE, streaming_merge.table)


def _measure(
    chosen: argparse.Namespace,
    given: Sequence[str],
    name: str,
    run: Callable[[argparse.Namespace, str], Report],
    page: Path,
    table: Callable[[Report], str],
) -> None:
    """Measure one subject and write its results; bring its page's table up to date."""
    if not chosen.table:
        finish(run(chosen, command(NAME, given)), name, chosen)
    if chosen.table or not (chosen.quick or chosen.out):
        fill(page, name, table(Report.read(RESULTS / f"{name}.json")))


def run(chosen: argparse.Namespace, line: str) -> Report:
    """Write the model, then prune it in every way, each in a process of its own."""
    size, samples = (QUICK, 4) if chosen.quick else (FULL, chosen.calibration)
    with TemporaryDirectory(dir=chosen.scratch) as scratch:
        folder = Path(scratch)
        total = write_llava(folder / "dense", size)
        data = builtin.data_sets()["demo"].write(folder / "data", "train", samples)
        rows, bars = [measured("the model", "size of its weights", [total / 1e6], "MB")], []
        for name, options in VARIANTS.items():
            print(f"{name} ...", file=sys.stderr, flush=True)
            given = [str(folder / "dense"), *options, "--data", str(data), "--calibration", str(samples)]
            limit = QUICK_LIMIT if chosen.quick else total // 2
            spent = spend(["prune", *given, "--out", str(folder / "pruned"), "--force"], chosen.threads, limit)
            rows += _rows(name, spent, rows[0])
            bars.append(_bar(name, spent, total, needed(size, samples, hessian="SparseGPT" in name)))
    return report(line, rows, bars, {"model": asdict(size), "calibration": samples})


def needed(size: Size, samples: int, *, hessian: bool) -> int:
    """Return the bytes that one block takes: its weights in float32, their results, its Hessians, the activations.

    A result is a weight in the checkpoint's two bytes and one byte of its mask. Of the activations what goes into the
    tower and what the last block gave are kept, at most 40 tokens a sample.
    """
    weights = 4 * size.hidden**2 + 3 * size.hidden * size.inner
    hessians = 3 * size.hidden**2 + size.inner**2 if hessian else 0
    return 7 * weights + 4 * hessians + 2 * 4 * 40 * samples * size.hidden


def _rows(name: str, spent: Spent, model: Row) -> list[Row]:
    rows = [
        measured(name, "peak resident memory", [spent.peak / 1e6], "MB", model),
        measured(name, "time", [spent.seconds], "s"),
    ]
    if spent.limit is None:
        return [
            *rows,
            Row(f"{name}: not limited, for no control group could be made", None, "limit", None, "MB", None, None),
        ]
    return [*rows, measured(name, "limit", [spent.limit / 1e6], "MB", model)]


def _bar(name: str, spent: Spent, total: int, block: int) -> Bar:
    goal = (SHARE * total + block) / 1e6
    return Bar(
        f"{name}: peak resident memory",
        f"at most {goal:.0f} MB: {SHARE} of the model and {block / 1e6:.0f} MB for a block",
        round(spent.peak / 1e6),
        spent.peak / 1e6 <= goal,
    )


def table(found: Report) -> str:
    """Return the page's table: memory and time of every way to prune, and the bars."""
    size = found.value("the model", "size of its weights")
    lines = [
        f"A LLaVA with random weights, {size:,.0f} MB in bfloat16; {found.settings['calibration']} calibration samples. The "
        "limit is a control group's; it counts the page cache.",
        "",
        "| | limit | peak resident memory | of the model | target | reached | time |",
        "|---|---:|---:|---:|---|---|---:|",
    ]
    for name, bar in zip(VARIANTS, found.bars, strict=True):
        limit, time_ = found.value(name, "limit"), found.value(name, "time")
        cells = (
            f"{limit:,.0f} MB" if limit else "none",
            f"{bar.value:,.0f} MB",
            f"{bar.value / size:.2f}" if size else "",
            bar.goal,
            "yes" if bar.holds else "no",
            f"{time_:,.0f} s",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Measured on {found.machine}, {found.date}: `{found.command}`."])


if __name__ == "__main__":
    main(sys.argv[1:])
