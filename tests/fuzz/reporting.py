"""The report of a run: counts by area and class, and every defect once, with the case that shows it."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.cases import Finding
from tests.fuzz.judging import Kind


@dataclass
class Defect:
    """A kind of defect at one place, how often it was met, and the first case that showed it."""

    kind: str
    place: str
    times: int
    case: str
    what: str
    command: str
    stderr: str


class Report:
    """Takes findings one by one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counts: dict[str, Counter[str]] = {}
        self.defects: dict[tuple[str, ...], Defect] = {}

    def add(self, finding: Finding) -> None:
        """Count a finding; a defect at a known place is counted there, one at a new place is told of on stderr."""
        kind, place = finding.verdict.kind, finding.verdict.place
        area = finding.case.partition(":")[0]
        self.counts.setdefault(area, Counter())[kind] += 1
        if not finding.verdict.is_defect:
            return
        key = (kind, place, finding.case) if area == "directed" else (kind, place)  # an attack is a defect of its own
        if key not in self.defects:
            print(f"{finding.case}: {kind}: {place}", file=sys.stderr, flush=True)
        known = self.defects.setdefault(
            key, Defect(kind, place, 0, finding.case, finding.what, finding.command, finding.outcome.stderr[-300:])
        )
        known.times += 1

    @property
    def total(self) -> int:
        return sum(sum(counter.values()) for counter in self.counts.values())

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as JSON values."""
        ordered = sorted(self.defects.values(), key=lambda one: (one.kind, -one.times))
        return {"seed": self.seed, "total": self.total, "counts": self.counts, "defects": [asdict(one) for one in ordered]}

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n")

    def table(self) -> str:
        """Return the counts as a table, and the defects, each in a line with the case that shows it."""
        kinds = [kind for kind in Kind if any(kind in counter for counter in self.counts.values())]
        rows = [["", *kinds, "all"]]
        rows += [
            [area, *(str(counter[kind]) for kind in kinds), str(counter.total())] for area, counter in self.counts.items()
        ]
        rows.append(["all", *(str(sum(one[kind] for one in self.counts.values())) for kind in kinds), str(self.total)])
        shown = [f"{one['kind']}: {one['place']} ({one['times']} times; {one['case']})" for one in self.to_json()["defects"]]
        return "\n".join([*_aligned(rows), "", *shown])


def _aligned(rows: list[list[str]]) -> Iterable[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
