"""The command line of the fuzzer: cases of every area in turn, for so many seconds; or one case again, to look at it."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count, cycle
from pathlib import Path

from tests.fuzz.cases import AREAS, Finding, try_case
from tests.fuzz.children import Children
from tests.fuzz.directed import DIRECTED, try_directed
from tests.fuzz.material import Material
from tests.fuzz.reporting import Report
from tests.fuzz.sandbox import remove

STRIDE = 1_000_000
"""How far apart the cases of two seeds are."""

_TOLD_EVERY = 1_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run cases; return 1 where there was a defect."""
    options = _parser().parse_args(arguments)
    folder = options.work or Path(tempfile.mkdtemp(prefix="vlmc-fuzz-"))
    report = Report(options.seed)
    with Children(folder / "home") as children:
        material, box = Material(folder / "material", children), folder / "box"
        try:
            if options.case:
                _show(_once(options.case, material, box), report)
            else:
                _run(options, material, box, report)
        finally:
            report.write(options.report)
            if options.work is None:
                remove(folder)
    print(report.table())
    return 1 if report.defects else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long to go on; the material is not counted")
    parser.add_argument("--count", type=int, help="stop after so many cases")
    parser.add_argument("--seed", type=int, default=0, help="which cases: no two seeds share one")
    parser.add_argument("--areas", default=",".join(AREAS), help="areas, separated by commas; directed: the known attacks")
    parser.add_argument("--case", help="only this case, AREA:NUMBER or directed:NAME, with all that it says")
    parser.add_argument("--report", type=Path, default=Path("fuzz.json"), help="file to write the report to")
    parser.add_argument("--work", type=Path, help="folder for the material, kept for the next run; not in the repository")
    return parser


def _run(options: argparse.Namespace, material: Material, box: Path, report: Report) -> None:
    """Do the directed cases where they are asked for, then those of the other areas in turn."""
    areas = options.areas.split(",")
    if "directed" in areas:
        areas.remove("directed")
        for name in DIRECTED:
            for finding in try_directed(name, material, box):
                report.add(finding)
    _ = material.model("llava"), material.model("idefics3"), material.adapted(), material.data()
    started = time.monotonic()
    turns = cycle(areas) if areas else iter(())
    for turn, area in zip(count(), turns, strict=False):
        if time.monotonic() - started > options.seconds or (options.count is not None and turn >= options.count):
            return
        if turn and turn % _TOLD_EVERY == 0:
            told = f"{turn} cases, {len(report.defects)} kinds of defects, {time.monotonic() - started:.0f} s"
            print(told, file=sys.stderr, flush=True)
        report.add(try_case(area, options.seed * STRIDE + turn, material, box))


def _once(case: str, material: Material, box: Path) -> list[Finding]:
    area, _, number = case.partition(":")
    return try_directed(number, material, box) if area == "directed" else [try_case(area, int(number), material, box)]


def _show(findings: Sequence[Finding], report: Report) -> None:
    for finding in findings:
        report.add(finding)
        print(f"{finding.case}: {finding.what}\n{finding.command}\n{finding.verdict}\n{finding.outcome}\n")
