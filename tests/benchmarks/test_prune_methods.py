"""The benchmark of pruning methods on a pico model, and the page that shows its results."""

from pathlib import Path

import prune_methods
import pytest
from labels import ACCURACY
from report import RESULTS, Report

from tests import pico
from vlmc.toolchain import data
from vlmc.toolchain.settings import PruneSettings


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Report:
    model = str(pico.save("llava", tmp_path_factory.mktemp("methods") / "dense"))
    return prune_methods.run([model], PruneSettings(calibration=2), 3, 2, "line")


@pytest.mark.slow
def test_every_variant_has_its_row(found: Report) -> None:
    names = [row.name.rpartition(": ")[2] for row in found.rows]
    assert names[0] == "dense"
    assert names[1:4] == ["Wanda, all tokens", "Wanda, text tokens", "Wanda, atv tokens"]
    assert names[18:20] == ["ADMM + refit, atv tokens", "Wanda + reconstruct, all tokens"]
    assert len(set(names)) == len(names) == 1 + 3 * 2 * 3 + 3
    assert [row.spread is None for row in found.rows] == [True] + [False] * 21, "pruned on every calibration set"
    assert all(row.metric == ACCURACY and row.value is not None and 0 <= row.value <= 100 for row in found.rows)


@pytest.mark.slow
def test_the_table_has_a_line_a_method(found: Report) -> None:
    lines = prune_methods.table(found).splitlines()
    assert [line.partition(" | ")[0] for line in lines if line.startswith("| ")][1:] == [
        *("| Wanda", "| Wanda + refit", "| SparseGPT", "| SparseGPT + refit", "| ADMM", "| ADMM + refit", "| mean of the 6"),
        *(f"| {method} + reconstruct" for method in ("Wanda", "SparseGPT", "ADMM")),
    ]
    assert "2:4, not repaired: the mean over 2 calibration sets of 2 samples each" in lines[0]
    assert lines[-1].endswith(": `line`.")


def test_the_page_shows_the_results() -> None:
    page = prune_methods.PAGE.read_text(encoding="utf-8")
    results: Path = RESULTS / "prune_methods.json"
    assert prune_methods.filled(page, Report.read(results)) == page, "run python benchmarks/prune_methods.py --table"
    stale = page.replace("| ADMM + refit | ", "| ADMM + refit | 9", 1)
    assert prune_methods.filled(stale, Report.read(results)) == page


def test_the_first_calibration_set_is_the_usual_one(tmp_path: Path) -> None:
    files = prune_methods.calibration_sets(tmp_path / "sets", 2, 3)
    usual = data.load("demo", "train", 6)
    for file, expected in zip(files, (usual[:3], usual[3:]), strict=True):
        found = data.load(file, "train", 3)
        for one, other in zip(found, expected, strict=True):
            assert (one.question, one.answer) == (other.question, other.answer)
            assert one.load_image().tobytes() == other.load_image().tobytes()
