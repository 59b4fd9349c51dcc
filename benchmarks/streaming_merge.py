"""Memory of `vlmc merge`, and of `vlmc eval` on what it made, beyond what the interpreter and its libraries take.

The model is pruned by magnitude and its adapters are random: neither makes a difference to what a merge has in memory.
"""

import argparse
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from large import Size, write_adapted, write_llava
from pages import DOCS
from processes import Spent, spend
from report import Bar, Report, Row, measured, report

from vlmc.toolchain import builtin
from vlmc.toolchain.settings import RepairMethod

NAME, PAGE = "streaming_merge", DOCS / "repair.md"
SHARE = 0.1  # of the model's size that may be resident beside one block and the interpreter
METHODS: tuple[RepairMethod, ...] = ("ressa", "masked-full")  # little is trained, and as much as there is
FULL = Size(hidden=2048, inner=5632, blocks=20, vision_blocks=3, rows=32_000)
QUICK = Size(hidden=256, inner=704, blocks=3, vision_blocks=2, rows=2_000)
SMALL = Size(hidden=64, inner=96, blocks=1, vision_blocks=1, rows=100)
QUESTIONS = 8


def run(chosen: argparse.Namespace, line: str) -> Report:
    """Merge a small model, then the large one with every adapter, and ask the result; each in a process of its own."""
    size = QUICK if chosen.quick else replace(FULL, blocks=chosen.blocks or FULL.blocks)
    with TemporaryDirectory(dir=chosen.scratch) as scratch:
        folder = Path(scratch)
        _prune(folder / "small", SMALL, chosen)
        write_adapted(folder / "small" / "pruned", folder / "small" / "adapted", METHODS[0])
        base = _merge(folder / "small", chosen).peak
        total = _prune(folder / "large", size, chosen)
        rows = [
            measured("the model", "size of its weights", [total / 1e6], "MB"),
            measured("the interpreter", "peak resident memory", [base / 1e6], "MB"),
        ]
        bars = []
        for method in METHODS:
            print(f"merge, {method} ...", file=sys.stderr, flush=True)
            trained = write_adapted(folder / "large" / "pruned", folder / "large" / "adapted", method)
            rows.append(measured(f"merge, {method}", "size of its adapter", [trained / 1e6], "MB", rows[0]))
            spent = _merge(folder / "large", chosen)
            rows += _rows(f"merge, {method}", spent, base, rows[0])
            bars.append(_bar(f"merge, {method}", spent.peak - base, total, size))
            shutil.rmtree(folder / "large" / "adapted")
        rows += _rows("eval, float32, dense and merged in turn", _eval(folder / "large", chosen), base, rows[0])
    return report(line, rows, bars, {"model": asdict(size), "block": block(size)})


def block(size: Size) -> int:
    """Return the bytes of one block's weights in float32."""
    return 4 * (4 * size.hidden**2 + 3 * size.hidden * size.inner)


def _prune(folder: Path, size: Size, chosen: argparse.Namespace) -> int:
    print(f"a model of {size.blocks} blocks ...", file=sys.stderr, flush=True)
    total = write_llava(folder / "dense", size)
    given = ["--method", "magnitude", "--calibration", "1", "--out", str(folder / "pruned")]
    spend(["prune", str(folder / "dense"), *given], chosen.threads)
    return total


def _merge(folder: Path, chosen: argparse.Namespace) -> Spent:
    return spend(["merge", str(folder / "adapted"), "--out", str(folder / "merged"), "--force"], chosen.threads)


def _eval(folder: Path, chosen: argparse.Namespace) -> Spent:
    data = builtin.data_sets()["demo"].write(folder / "data", "test", QUESTIONS)
    return spend(["eval", str(folder / "merged"), "--data", str(data), "--count", str(QUESTIONS)], chosen.threads)


def _rows(name: str, spent: Spent, base: int, model: Row) -> list[Row]:
    return [
        measured(name, "peak resident memory", [spent.peak / 1e6], "MB", model),
        measured(name, "peak beyond the interpreter", [(spent.peak - base) / 1e6], "MB", model),
        measured(name, "time", [spent.seconds], "s"),
    ]


def _bar(name: str, beyond: int, total: int, size: Size) -> Bar:
    goal = (SHARE * total + block(size)) / 1e6
    told = f"at most {goal:.0f} MB: {SHARE} of the model and {block(size) / 1e6:.0f} MB for a block in float32"
    return Bar(f"{name}: peak beyond the interpreter", told, round(beyond / 1e6), beyond / 1e6 <= goal)


def table(found: Report) -> str:
    """Return the page's table: memory and time of every merge, and of an evaluation."""
    model, base = found.value("the model", "size of its weights"), found.value("the interpreter", "peak resident memory")
    bars = {bar.name.split(":")[0]: bar for bar in found.bars}
    lines = [
        f"A LLaVA with random weights, {model:,.0f} MB in bfloat16. Beyond the interpreter: less the {base:,.0f} MB that a "
        "merge of a model of a few hundred kilobytes has resident.",
        "",
        "| | trained | peak resident memory | beyond the interpreter | of the model | target | reached | time |",
        "|---|---:|---:|---:|---:|---|---|---:|",
    ]
    for name in dict.fromkeys(row.name for row in found.rows if row.metric == "peak beyond the interpreter"):
        trained, bar = found.value(name, "size of its adapter"), bars.get(name)
        peak, beyond, time = (
            found.value(name, metric) or 0.0 for metric in ("peak resident memory", "peak beyond the interpreter", "time")
        )
        cells = (
            f"{trained:,.0f} MB" if trained else "",
            f"{peak:,.0f} MB",
            f"{beyond:,.0f} MB",
            f"{beyond / model:.2f}" if model else "",
            bar.goal if bar else "",
            ("yes" if bar.holds else "**no**") if bar else "",
            f"{time:,.0f} s",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Measured on {found.machine}, {found.date}: `{found.command}`."])
