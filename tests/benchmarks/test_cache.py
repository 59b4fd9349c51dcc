"""The page shows the results, and the benchmark's contestants compute the same."""

import cache
import numpy as np
import pytest
from pages import DOCS, with_table
from report import RESULTS, Report


def test_the_page_shows_the_results() -> None:
    page = (DOCS / "cpu.md").read_text()
    found = Report.read(RESULTS / "cache.json")
    assert with_table(page, cache.NAME, cache.table(found)) == page, "run python benchmarks/cache.py --table"
    assert all(bar.holds for bar in found.bars)


def test_ratios_are_medians_of_rounds() -> None:
    taken = {cache.CONCATENATED: [4.0, 2.0, 9.0], cache.ATTENTION: [4.0, 1.0, 3.0], cache.IN_PLACE: [1.0, 1.0, 1.0]}
    rows, (bar,) = cache.rows_and_bars(64, 1, taken)
    speeds = {row.name.partition(": ")[2]: row.value for row in rows if row.metric == cache.SPEED}
    assert speeds == {cache.ATTENTION: 2.0, cache.IN_PLACE: 4.0}
    assert (bar.value, bar.holds) == (4.0, True)


def test_other_outputs_are_no_result() -> None:

    same = np.ones((1, 1, 2))
    cache._same({cache.CONCATENATED: same, cache.IN_PLACE: same + 1e-6})
    with pytest.raises(RuntimeError, match="in place gives other outputs than concatenated"):
        cache._same({cache.CONCATENATED: same, cache.IN_PLACE: same + 1e-3})
