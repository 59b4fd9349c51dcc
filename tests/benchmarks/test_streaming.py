"""The benchmark of memory: its model is one that vlmc prunes, and its page's table comes from its results."""

from pathlib import Path
from types import ModuleType

import pytest
import streaming
import streaming_merge
from large import Size, write_adapted, write_llava
from pages import with_table
from report import RESULTS, Report

from vlmc.runtime.tensors import open_weights
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneSettings, RepairMethod
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.prune import Prune

TINY = Size(hidden=64, inner=96, blocks=1, vision_blocks=1, rows=100)


@pytest.mark.integration
def test_the_large_model_is_sharded_and_can_be_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("large.SHARD", 100_000)
    total = write_llava(tmp_path / "dense", TINY)
    files = open_weights(tmp_path / "dense")
    assert total == sum(file.span(name)[1] - file.span(name)[0] for name, file in files.items())
    assert len({file.path for file in files.values()}) > 1
    assert {file.dtype(name) for name, file in files.items()} == {"BF16"}
    Prune(PruneSettings(calibration=1)).run(SavedModel.find(str(tmp_path / "dense")), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("method", streaming_merge.METHODS)
def test_its_random_adapters_can_be_merged(method: RepairMethod, tmp_path: Path) -> None:
    write_llava(tmp_path / "dense", TINY)
    options = PruneSettings(method="magnitude", calibration=1)
    Prune(options).run(SavedModel.find(str(tmp_path / "dense")), tmp_path / "pruned")
    write_adapted(tmp_path / "pruned", tmp_path / "adapted", method, rank=2)
    result = Merge().run(SavedModel.find(str(tmp_path / "adapted")), tmp_path / "merged")
    assert result.manifest.history[-1].measures["logit_effect"] > 0


def test_what_a_block_needs_is_counted() -> None:
    size = Size(hidden=10, inner=20, blocks=1, vision_blocks=1, rows=1)
    weights, activations = 4 * 100 + 3 * 200, 2 * 4 * 40 * 5 * 10
    assert streaming.needed(size, 5, hessian=False) == 7 * weights + activations
    assert streaming.needed(size, 5, hessian=True) == 7 * weights + 4 * (3 * 100 + 400) + activations


@pytest.mark.parametrize("subject", [streaming, streaming_merge], ids=["prune", "merge"])
def test_the_page_shows_the_results(subject: ModuleType) -> None:
    page = subject.PAGE.read_text(encoding="utf-8")
    found = Report.read(RESULTS / f"{subject.NAME}.json")
    assert with_table(page, subject.NAME, subject.table(found)) == page, "run python benchmarks/streaming.py --table"


def test_the_bar_of_a_merge_is_a_block_and_a_tenth_of_the_model() -> None:
    size = Size(hidden=1000, inner=2000, blocks=1, vision_blocks=1, rows=1)
    assert streaming_merge.block(size) == 40_000_000
    kept, broken = (streaming_merge._bar("it", beyond, 100_000_000, size) for beyond in (50_000_000, 50_000_001))
    assert kept.holds
    assert not broken.holds


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="one place for the table streaming"):
        with_table("no table here", "streaming", "table")
