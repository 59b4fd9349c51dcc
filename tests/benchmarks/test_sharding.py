"""The benchmark of shards: its rows and bars from what runs spent, its watch over processes, and the page's table."""

from pathlib import Path

import sharding
from pages import with_table
from report import RESULTS, Report, report
from sharding import ONE, SHARDS, WHOLE, Spent

TOTAL = 1_000_000_000
GOOD = {
    ONE: Spent(TOTAL, 3 * TOTAL, [2.0, 1.0]),
    WHOLE: Spent(TOTAL, 3 * TOTAL, [2.0, 1.001]),
    SHARDS: Spent(TOTAL // 2, 2 * TOTAL, [2.0, 1.001]),
}


def test_bars_hold_where_half_is_held_at_the_same_losses() -> None:
    assert [bar.holds for bar in sharding.bars_of(GOOD, TOTAL)] == [True, True, True]
    bad = GOOD | {SHARDS: Spent(TOTAL * 3 // 5, 3 * TOTAL, [2.0, 1.1])}
    assert [bar.holds for bar in sharding.bars_of(bad, TOTAL)] == [False, False, False]


def test_the_table_has_a_line_for_every_run() -> None:
    text = sharding.table(report("line", sharding.rows_of(GOOD, TOTAL), sharding.bars_of(GOOD, TOTAL), {}))
    assert f"| {SHARDS} | 500 MB | 0.50 | 2,000 MB | 0.1 % |" in text
    assert all(f"| {name} |" in text for name in sharding.RUNS)


def test_the_page_has_the_latest_results() -> None:
    page: Path = sharding.PAGE
    text, found = page.read_text(encoding="utf-8"), Report.read(RESULTS / "sharding.json")
    assert with_table(text, "sharding", sharding.table(found)) == text, "run python benchmarks/sharding.py --table"
