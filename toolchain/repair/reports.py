"""What repair says of its training: one row for each step, and a few figures for the artifact's history."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from vlmc.toolchain.repair.training import Record

REPORT = "reports/repair.csv"


def write_report(path: Path, records: Sequence[Record]) -> None:
    """Write the records as CSV; equal runs give equal bytes, for no time is in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{step},{','.join(f'{value:.6g}' for value in record)}" for step, record in enumerate(records, 1)]
    path.write_text("\n".join([f"step,{','.join(Record._fields)}", *rows]) + "\n", encoding="utf-8")


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Return the mean losses of the first and of the last tenth of the steps."""
    window = max(1, len(records) // 10)
    first, last = records[:window], records[-window:]
    return {
        f"{when}_{name}": round(fmean(getattr(record, name) for record in some), 6)
        for when, some in (("first", first), ("last", last))
        for name in ("loss", "task", "kl")
    }
