"""Memory of `vlmc repair` in two processes, with the frozen weights whole in each of them and in shards, beside one process.

A LLaVA with random weights in bfloat16, pruned by magnitude; peak resident memory is the system's own high-water mark.
"""

import argparse
import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from large import Size, write_llava
from pages import DOCS, fill
from processes import watch
from report import RESULTS, Bar, Report, Row, arguments, command, finish, measured, prepare, report, targets

from vlmc.toolchain import builtin

NAME, PAGE = "sharding", DOCS / "repair.md"
WEIGHTS, PEAK, GAP = "weights in each process", "peak resident memory", "greatest difference of a loss"
SHARE = 0.55  # of the weights that a process of two may hold
ONE, WHOLE, SHARDS = "one process", "two processes, weights whole", "two processes, weights in shards"
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
RUNS: dict[str, tuple[int, dict[str, str]]] = {ONE: (1, {}), WHOLE: (2, {}), SHARDS: (2, FSDP2)}
OPTIONS = ("--steps", "2", "--batch", "2", "--precision", "bf16", "--hold-out", "0", "--gradient-checkpointing", "--quiet")
FULL = Size(hidden=1024, inner=2816, blocks=8, vision_blocks=2, rows=32_000)
QUICK = Size(hidden=128, inner=256, blocks=3, vision_blocks=2, rows=2_000)


@dataclass(frozen=True)
class Spent:
    """What one run took: the greatest bytes of weights and of resident memory of a process, and the losses of its steps."""

    weights: int
    peak: int
    losses: list[float]


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    chosen = parser.parse_args(given)
    prepare(chosen)
    if not chosen.table:
        finish(run(chosen, command(NAME, given)), NAME, chosen)
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


def run(chosen: argparse.Namespace, line: str) -> Report:
    """Write the model, prune it, then repair it in every way."""
    size = QUICK if chosen.quick else FULL
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        total = write_llava(folder / "dense", size)
        data = str(builtin.data_sets()["demo"].write(folder / "data", "train", 4))
        _vlmc(
            ["prune", str(folder / "dense"), "--method", "magnitude", "--data", data, "--calibration", "1", *_to(folder, 0)]
        )
        spent = {}
        for number, (name, (count, told)) in enumerate(RUNS.items(), 1):
            print(f"{name} ...", file=sys.stderr, flush=True)
            line_ = ["repair", str(folder / "0"), "--data", data, *OPTIONS, *_to(folder, number)]
            spent[name] = _repair(line_, count, told, folder / str(number), total, chosen.threads or 1)
    return report(line, rows_of(spent, total), bars_of(spent, total), {"model": asdict(size)})


def rows_of(spent: dict[str, Spent], total: int) -> list[Row]:
    """Return the rows: memory beside the model's size, and how far each run's losses are from those of one process."""
    rows = [measured("the model", "size of its weights", [total / 1e6], "MB")]
    for name, one in spent.items():
        rows.append(measured(name, WEIGHTS, [one.weights / 1e6], "MB", rows[0]))
        rows.append(measured(name, PEAK, [one.peak / 1e6], "MB", rows[0]))
        rows.append(measured(name, GAP, [_gap(one.losses, spent[ONE].losses)], "of the loss"))
    return rows


def bars_of(spent: dict[str, Spent], total: int) -> list[Bar]:
    """Return the targets: about half of the weights, and as much less at the peak, at one process's losses."""
    held, whole, gap = spent[SHARDS].weights / total, spent[WHOLE], _gap(spent[SHARDS].losses, spent[ONE].losses)
    saved = (whole.peak - spent[SHARDS].peak) / total
    return [
        Bar("weights in each of two processes", f"at most {SHARE} of the model", round(held, 4), held <= SHARE),
        Bar("peak with shards", "lower by at least 0.4 of the model", round(saved, 4), saved >= 0.4),
        Bar("losses with shards", "those of one process to 1 %", round(gap, 6), gap <= 0.01),
    ]


def table(found: Report) -> str:
    """Return the page's table."""
    size = found.value("the model", "size of its weights") or 0.0
    lines = [
        f"A LLaVA with random weights, {size:,.0f} MB in bfloat16, pruned to 2:4; `vlmc repair {' '.join(OPTIONS)}`, the "
        "teacher's weights shared with the student. Memory is the greater of the processes'; the losses' difference is to "
        "one process.",
        "",
        "| | weights in each process | of the model | peak resident memory | difference of a loss |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in RUNS:
        weights, peak, gap = (found.value(name, metric) or 0.0 for metric in (WEIGHTS, PEAK, GAP))
        lines.append(f"| {name} | {weights:,.0f} MB | {weights / size:.2f} | {peak:,.0f} MB | {100 * gap:.2g} % |")
    return "\n".join([*lines, "", targets(found), "", f"Measured on {found.machine}, {found.date}: `{found.command}`."])


def _repair(line: list[str], count: int, told: dict[str, str], out: Path, total: int, threads: int) -> Spent:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = told | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    told |= {"OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "true"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)] if count > 1 else [{}]
    peak = watch(*(_start(line, (told if count > 1 else {"OMP_NUM_THREADS": str(threads)}) | rank) for rank in ranks))
    measures = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["history"][-1]["measures"]
    steps = list(csv.DictReader((out / "reports" / "repair.csv").read_text(encoding="utf-8").splitlines()))
    return Spent(measures.get("weight_bytes_each", total), peak, [float(step["loss"]) for step in steps])


def _start(arguments: Sequence[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "vlmc.toolchain.cli", *arguments], env=os.environ | environment)


def _vlmc(arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "vlmc.toolchain.cli", *arguments, "--quiet"], check=True)


def _to(folder: Path, number: int) -> tuple[str, str]:
    return "--out", str(folder / str(number))


def _gap(losses: Sequence[float], true: Sequence[float]) -> float:
    return max(abs(one - other) / abs(other) for one, other in zip(losses, true, strict=True))


if __name__ == "__main__":
    main(sys.argv[1:])
