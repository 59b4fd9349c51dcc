"""The benchmark of shards: its rows and bars from what runs spent, its watch over processes, and the page's table."""

import subprocess
import sys
from pathlib import Path

import pytest
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


def test_the_greatest_of_several_processes_is_seen() -> None:
    code = "import sys, time; block = b'x' * int(sys.argv[1]); time.sleep(1)"
    processes = [subprocess.Popen([sys.executable, "-S", "-c", code, str(size)]) for size in (1000, 100_000_000)]
    assert 90e6 < sharding.watch(processes) < 200e6


def test_a_run_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="status 3"):
        sharding.watch([subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"])])


def test_the_page_has_the_latest_results() -> None:
    page: Path = sharding.PAGE
    text, found = page.read_text(encoding="utf-8"), Report.read(RESULTS / "sharding.json")
    assert with_table(text, "sharding", sharding.table(found)) == text, "run python benchmarks/sharding.py --table"
