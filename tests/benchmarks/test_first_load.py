"""The page shows the results, and ratios are taken round by round."""

import first_load
import pytest
from pages import DOCS, with_table
from report import RESULTS, Report

from tests.artifacts import exported


def test_the_page_shows_the_results() -> None:
    page = (DOCS / "runtime.md").read_text()
    found = Report.read(RESULTS / "first_load.json")
    assert with_table(page, first_load.NAME, first_load.table(found)) == page, "run python benchmarks/first_load.py --table"


def test_ratios_are_medians_of_rounds() -> None:
    taken = {first_load.SIZES: [1.0, 2.0, 4.0], first_load.HASHED: [1.1, 2.0, 8.0], first_load.KNOWN: [1.0, 2.0, 3.0]}
    rows, (bar,) = first_load.rows_and_bars(taken)
    assert [row.ratio for row in rows] == [None, 1.1, 1.0]
    assert [row.spread for row in rows] == [None, 1.0, 0.25]
    assert (bar.value, bar.holds) == (1.1, False)


@pytest.mark.integration
def test_everyone_answers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMC_CACHE", str(tmp_path_factory.mktemp("unused")))  # put back afterwards
    artifact = exported("llava", tmp_path_factory.getbasetemp())
    cache = tmp_path_factory.mktemp("cache") / "fresh"
    assert all(first_load.once(artifact, verify, cache) > 0 for verify in first_load.VERIFY.values())
