"""The benchmark of the split study on a pico model, and the page that shows its results."""

from pathlib import Path

import pytest
import split_study
from labels import ACCURACY
from report import RESULTS, Report

from tests import pico
from vlmc.toolchain.settings import SweepSettings

FEW = SweepSettings(sums="100,150", shares="50:50,20:80", calibration=2, count=3)


@pytest.mark.slow
def test_every_variant_has_its_rows_and_the_tables_show_them(tmp_path: Path) -> None:
    model = str(pico.save("llava", tmp_path / "dense"))
    found = split_study.run([model], FEW, 2, "line", tmp_path)
    names = [row.name.rpartition(": ")[2] for row in found.rows if row.metric == ACCURACY]
    assert names[0] == "dense"
    assert [row.name for row in found.rows if row.metric == ACCURACY][1].endswith("50:50, 100 %")
    assert len(names) == 1 + 3 + 3
    spreads = [row.spread is None for row in found.rows if row.metric == ACCURACY]
    assert spreads == [True] + [False] * 6, "pruned on every calibration set"
    assert (tmp_path / "split.png").is_file()
    assert (tmp_path / "where.png").is_file()
    lines = split_study.tables(found).splitlines()
    heads = [line for line in lines if line.startswith("| `")]
    assert [head.partition(": ")[2] for head in heads] == [
        "vision : language | sum 100 % | zeros | sum 150 % | zeros |",
        "pruned | 2:4 | zeros |",
    ]
    shares = [line for line in lines if line.startswith(("| 50:50", "| 20:80"))]
    assert [line.partition(" | ")[0] for line in shares] == ["| 50:50", "| 20:80"]
    assert shares[1].endswith("| skipped |  |")
    assert "mean over 2 calibration sets of 2 samples each" in lines[0]
    assert lines[-1].endswith(": `line`.")


def test_the_page_shows_the_results() -> None:
    page = split_study.PAGE.read_text(encoding="utf-8")
    found = Report.read(RESULTS / "split_study.json")
    assert split_study.filled(page, found) == page, "run python benchmarks/split_study.py --table"
    stale = page.replace(" % (", " % (9", 1)
    assert stale != page
    assert split_study.filled(stale, found) == page
