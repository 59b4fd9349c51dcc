"""The benchmark of memory: its model is one that vlmc prunes, and its page's table comes from its results."""

from pathlib import Path

import pytest
import streaming
from large import Size, write_llava
from pages import with_table
from report import RESULTS, Report

from vlmc.runtime.tensors import open_weights
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.prune import Prune

TINY = Size(hidden=64, inner=96, blocks=1, vision_blocks=1, rows=100)


def test_the_large_model_is_sharded_and_can_be_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("large.SHARD", 100_000)
    total = write_llava(tmp_path / "dense", TINY)
    files = open_weights(tmp_path / "dense")
    assert total == sum(file.span(name)[1] - file.span(name)[0] for name, file in files.items())
    assert len({file.path for file in files.values()}) > 1
    assert {file.dtype(name) for name, file in files.items()} == {"BF16"}
    Prune(PruneSettings(calibration=1)).run(Checkpoint.find(str(tmp_path / "dense")), tmp_path / "out")


def test_what_a_block_needs_is_counted() -> None:
    size = Size(hidden=10, inner=20, blocks=1, vision_blocks=1, rows=1)
    weights, activations = 4 * 100 + 3 * 200, 2 * 4 * 40 * 5 * 10
    assert streaming.needed(size, 5, hessian=False) == 7 * weights + activations
    assert streaming.needed(size, 5, hessian=True) == 7 * weights + 4 * (3 * 100 + 400) + activations


def test_a_process_is_watched_to_its_end() -> None:
    import subprocess
    import sys

    process = subprocess.Popen([sys.executable, "-c", "import time; x = bytearray(200_000_000); time.sleep(0.5)"])
    assert 200e6 < streaming._watch(process) < 300e6
    assert process.returncode == 0


def test_the_page_shows_the_results() -> None:
    page = streaming.PAGE.read_text(encoding="utf-8")
    found = Report.read(RESULTS / "streaming.json")
    assert with_table(page, "streaming", streaming.table(found)) == page, "run python benchmarks/streaming.py --table"


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="one place for the table streaming"):
        with_table("no table here", "streaming", "table")
