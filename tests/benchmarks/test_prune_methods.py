"""The benchmark of pruning methods on a pico model, and the page that shows its results."""

from pathlib import Path

import prune_methods
import pytest
from labels import ACCURACY
from report import RESULTS, Report

from tests import pico
from vlmc.toolchain.settings import PruneSettings


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Report:
    model = str(pico.save("llava", tmp_path_factory.mktemp("methods") / "dense"))
    return prune_methods.run([model], PruneSettings(calibration=2), 3, "line")


def test_every_variant_has_its_row(found: Report) -> None:
    names = [row.name.rpartition(": ")[2] for row in found.rows]
    assert names[0] == "dense"
    assert names[1:4] == ["Wanda, all tokens", "Wanda, text tokens", "Wanda, atv tokens"]
    assert names[-1] == "ADMM + refit, atv tokens"
    assert len(set(names)) == len(names) == 1 + 3 * 2 * 3
    assert all(row.metric == ACCURACY and row.value is not None and 0 <= row.value <= 100 for row in found.rows)


def test_the_table_has_a_line_a_method(found: Report) -> None:
    lines = prune_methods.table(found).splitlines()
    assert [line.partition(" | ")[0] for line in lines if line.startswith("| ")][1:] == [
        *("| Wanda", "| Wanda + refit", "| SparseGPT", "| SparseGPT + refit", "| ADMM", "| ADMM + refit")
    ]
    assert "3 validation questions, vision and language pruned to 2:4 on 2 samples" in lines[0]
    assert lines[-1].endswith(": `line`.")


def test_the_page_shows_the_results(found: Report) -> None:
    page = prune_methods.PAGE.read_text(encoding="utf-8")
    results: Path = RESULTS / "prune_methods.json"
    assert prune_methods.filled(page, Report.read(results)) == page, "run python benchmarks/prune_methods.py --table"
    assert prune_methods.filled(page, found) != page
