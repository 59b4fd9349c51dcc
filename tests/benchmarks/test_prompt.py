"""The page shows the results, and ratios are those of rounds."""

import prompt
from pages import DOCS, with_table
from report import RESULTS, Report


def test_the_page_shows_the_results() -> None:
    page = (DOCS / "cpu.md").read_text()
    found = Report.read(RESULTS / "prompt.json")
    assert with_table(page, prompt.NAME, prompt.table(found)) == page, "run python benchmarks/prompt.py --table"
    assert all(bar.holds for bar in found.bars)


def test_ratios_are_medians_of_rounds() -> None:
    taken = {prompt.COMPUTED: [4.0, 2.0, 9.0], prompt.ZERO: [1.0, 1.0, 3.0]}
    rows, bar = prompt.rows_and_bar(64, taken)
    assert [(row.name, row.value) for row in rows if row.metric == prompt.SPEED] == [("64 tokens: taken as zero", 3.0)]
    assert (bar.value, bar.holds) == (3.0, True)
