"""The command line of the kills: so many for each verb."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.children import Children
from tests.fuzz.kills.killing import try_kill, unbroken
from tests.fuzz.kills.verbs import VERBS
from tests.fuzz.material import Material
from tests.fuzz.reporting import Report
from tests.fuzz.running import STRIDE
from tests.fuzz.sandbox import remove


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill; return 1 where there was a defect."""
    options = _parser().parse_args(arguments)
    folder = options.work or Path(tempfile.mkdtemp(prefix="vlmc-kills-"))
    report = Report(options.seed)
    with Children(folder / "home") as children:
        material, box = Material(folder / "material", children), folder / "box"
        try:
            if options.case:
                name, _, number = options.case.partition(":")
                finding = try_kill(name, int(number), unbroken(name, material, box), material, box)
                report.add(finding)
                print(f"{finding.case}: {finding.what}\n{finding.command}\n{finding.verdict}\n{finding.outcome}")
            else:
                for name in options.verbs.split(","):
                    _kill(name, options, material, box, report)
        finally:
            report.write(options.report)
            if options.work is None:
                remove(folder)
    print(report.table())
    return 1 if report.defects else 0


def _kill(name: str, options: argparse.Namespace, material: Material, box: Path, report: Report) -> None:
    whole = unbroken(name, material, box)
    for turn in range(options.count):
        report.add(try_kill(name, options.seed * STRIDE + turn, whole, material, box))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="kills of each verb")
    parser.add_argument("--seed", type=int, default=0, help="which moments: no two seeds share one but by chance")
    parser.add_argument("--verbs", default=",".join(VERBS), help="verbs, separated by commas")
    parser.add_argument("--case", help="only this kill, VERB:NUMBER, with all that the verb says after it")
    parser.add_argument("--report", type=Path, default=Path("kills.json"), help="file to write the report to")
    parser.add_argument("--work", type=Path, help="folder for the material, kept for the next run; not in the repository")
    return parser
