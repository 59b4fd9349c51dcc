"""Memory and time of `vlmc export` on one large shape: a LLaVA as wide as LLaVA-1.5-7B, with four language blocks.

Its weights are random and pruned to 2:4 by magnitude. The decoder's are stored in a file of their own, beside the graph.
It is exported with all memory that there is, then in a process that may have less than the weights take in fp16.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from large import Size, write_llava
from pages import DOCS, fill
from processes import spend
from report import RESULTS, Report, arguments, command, finish, measured, prepare, report

NAME, PAGE = "export_large", DOCS / "families.md"
MODEL = "the model, fp16"
PEAK, SIZE, TIME = "peak resident memory", "bytes of the graphs", "time"
FULL = Size(hidden=4096, inner=11008, blocks=4, vision_blocks=1, rows=32_064)
QUICK = Size(hidden=128, inner=256, blocks=1, vision_blocks=1, rows=500)
KINDS = {"fp16": ("--precision", "fp16"), "bf16, 2:4 packed": ("--cpu-sparse", "bf16")}
"""What is exported, by its name, and the options for it."""
LIMIT = 2_000_000_000
"""Bytes of memory that the second export may have: four fifths of the weights in fp16."""


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), help="what to export [default: all]")
    parser.add_argument("--limit", type=int, default=LIMIT, help=f"bytes of memory of the second export [default: {LIMIT}]")
    parser.add_argument("--scratch", type=Path, help="where to put the model [default: the system's folder for such]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    chosen = parser.parse_args(given)
    prepare(chosen)
    if not chosen.table:
        finish(run(chosen, command(NAME, given)), NAME, chosen)
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


def run(chosen: argparse.Namespace, line: str) -> Report:
    """Write the model and prune it; export it as each kind, in processes of their own, with and without a limit."""
    size = QUICK if chosen.quick else FULL
    with TemporaryDirectory(dir=chosen.scratch) as scratch:
        dense, artifact = Path(scratch) / "dense", Path(scratch) / "artifact"
        total = write_llava(dense, size, torch.float16)
        spend(["prune", str(dense), "--method", "magnitude", "--calibration", "1", "--out", str(artifact)], chosen.threads)
        rows = [measured(MODEL, "size of its weights", [total / 1e6], "MB")]
        for kind, limit in product(chosen.kinds, [None] if chosen.quick else [None, chosen.limit]):
            name = kind if limit is None else f"{kind}, {limit / 1e6:,.0f} MB of memory"
            print(f"export, {name} ...", file=sys.stderr, flush=True)
            spent = spend(["export", str(artifact), *KINDS[kind]], chosen.threads, limit)
            if spent.limit != limit:
                raise SystemExit("no control group can be made here, by which a process's memory is limited")
            files = sum(path.stat().st_size for path in (artifact / "onnx").iterdir())
            rows.append(measured(name, SIZE, [files / 1e6], "MB", rows[0]))
            rows.append(measured(name, PEAK, [spent.peak / 1e6], "MB", rows[0]))
            rows.append(measured(name, TIME, [spent.seconds], "s"))
    return report(line, rows, [], asdict(size))


def table(found: Report) -> str:
    """Return the results in Markdown."""
    lines = [f"| weights | {SIZE} | {PEAK} | {TIME} |", "|---|---:|---:|---:|"]
    for name in dict.fromkeys(row.name for row in found.rows if row.name != MODEL):
        size, peak, time = (found.value(name, metric) or 0.0 for metric in (SIZE, PEAK, TIME))
        lines.append(f"| {name} | {size:,.0f} MB | {peak:,.0f} MB | {time:,.0f} s |")
    model = found.value(MODEL, "size of its weights")
    told = f"The model has {model:,.0f} MB in fp16. Measured on {found.machine}, {found.date}: `{found.command}`."
    return "\n".join([*lines, "", told])


if __name__ == "__main__":
    main(sys.argv[1:])
