"""What every benchmark reports: rows and bars, with the machine and the versions that they were measured on."""

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from statistics import fmean
from typing import Any

from vlmc.runtime.artifact.texts import write_text
from vlmc.toolchain.reporting.tables import show_table

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Row:
    """One measure: the mean of its repeats, `ratio` to the same measure of `baseline`, `spread` from least to greatest.

    `value` is None where nothing could be measured; the name says why. `spread` is None where there was one repeat.
    """

    name: str
    baseline: str | None
    metric: str
    value: float | None
    unit: str
    ratio: float | None
    spread: float | None


@dataclass(frozen=True)
class Bar:
    """A target of an issue, and whether the measured value reaches it."""

    name: str
    goal: str
    value: float
    holds: bool


@dataclass(frozen=True)
class Report:
    """A benchmark's result; `settings` holds what it was run with, defaults included."""

    machine: str
    versions: dict[str, str]
    date: str
    command: str
    rows: list[Row]
    bars: list[Bar]
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read what `write` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        rows, bars = [Row(**row) for row in content.pop("rows")], [Bar(**bar) for bar in content.pop("bars")]
        return cls(**content, rows=rows, bars=bars)

    def write(self, path: Path) -> None:
        """Write the report as JSON, in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    def show(self) -> None:
        """Print rows and bars."""
        print(f"{self.machine}\n{self.command}\n")
        show_table(("name", "metric", "value", "unit", "ratio", "spread", "baseline"), [_cells(row) for row in self.rows])
        print()
        bars = [(bar.name, bar.goal, f"{bar.value:g}", "holds" if bar.holds else "DOES NOT HOLD") for bar in self.bars]
        show_table(("bar", "goal", "value", "verdict"), bars)

    def find(self, name: str, metric: str) -> Row | None:
        """Return the row of that name and metric, if there is one."""
        return next((row for row in self.rows if (row.name, row.metric) == (name, metric)), None)

    def value(self, name: str, metric: str) -> float | None:
        """Return that row's value, if there is one."""
        row = self.find(name, metric)
        return None if row is None else row.value


def measured(name: str, metric: str, values: Sequence[float], unit: str, baseline: Row | None = None) -> Row:
    """Return the row of a measure's repeats."""
    mean = fmean(values)
    against = None if baseline is None else baseline.value
    return Row(
        name=name,
        baseline=None if baseline is None else baseline.name,
        metric=metric,
        value=_rounded(mean),
        unit=unit,
        ratio=round(mean / against, 4) if against else None,
        spread=_rounded(max(values) - min(values)) if len(values) > 1 else None,
    )


def _rounded(number: float) -> float:
    return round(number, 3) if abs(number) >= 1 else three_digits(number)


def three_digits(number: float) -> float:
    """Return a number rounded to three digits, as times and ratios are told."""
    return float(f"{number:.3g}")


def tenths(number: float) -> str:
    """Return a number with one decimal, halves rounded up as on the model cards: accuracies come in steps of 0.05."""
    return str(Decimal(str(number)).quantize(Decimal("0.1"), ROUND_HALF_UP))


def at_least(name: str, goal: float, value: float, unit: str) -> Bar:
    """Return the bar of a value that must be at least the goal."""
    return Bar(name, f"at least {goal:g} {unit}", round(value, 3), value >= goal)


def _cells(row: Row) -> tuple[str, ...]:
    value, ratio, spread = (f"{it:,.10g}" if it is not None else "" for it in (row.value, row.ratio, row.spread))
    return row.name, row.metric, value, row.unit, ratio, spread, row.baseline or ""


def targets(found: Report) -> str:
    """Return every target of the results in Markdown, reached or not; open where one is missed."""
    missed = sum(not bar.holds for bar in found.bars)
    verdict = f"{missed} of {len(found.bars)} targets are missed" if missed else f"All {len(found.bars)} targets are reached"
    rows = [f"| {bar.name} | {bar.goal} | {bar.value:g} | {'yes' if bar.holds else '**no**'} |" for bar in found.bars]
    table = "\n".join(["| target | goal | measured | reached |", "|---|---|---:|---|", *rows])
    return f"<details{' open' if missed else ''}><summary>{verdict}</summary>\n\n{table}\n\n</details>"


def report(command: str, rows: list[Row], bars: list[Bar], settings: dict[str, Any]) -> Report:
    """Return the report of what was just measured on this machine."""
    return Report(machine(), _versions(), f"{datetime.now(UTC):%Y-%m-%d}", command, rows, bars, settings)


def machine() -> str:
    """Return processor, cores, memory and threads used, in words."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB memory; {_counted(torch.get_num_threads())} used"


def _counted(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    from vlmc.toolchain.machine.versions import versions

    return {"python": platform.python_version(), **versions()}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="every row, only smaller: within a minute on two cores")
    parser.add_argument("--out", type=Path, help="where to write the JSON [default: benchmarks/results; nowhere if --quick]")
    parser.add_argument("--threads", type=int, help="threads of torch [default: torch's own choice]")
    return parser


def command(program: str, given: Sequence[str]) -> str:
    """Return the line that runs the same again; where its result goes, and its models are kept, is no part of it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out")
    parser.add_argument("--keep")
    return shlex.join(["python", f"benchmarks/{program}.py", *parser.parse_known_args(list(given))[1]])


def finish(result: Report, name: str, chosen: argparse.Namespace) -> None:
    """Print the report, and write it where the arguments say: a quick one only where `--out` asks for it."""
    result.show()
    out = chosen.out or (None if chosen.quick else RESULTS / f"{name}.json")
    if out is not None:
        result.write(out)
        print(f"\nwritten to {out}", file=sys.stderr)


def prepare(chosen: argparse.Namespace) -> None:
    """Set the threads, and keep libraries' notices off the terminal."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
