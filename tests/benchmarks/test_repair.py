"""The benchmark of repair methods on a pico model: every row, and that no finished run is done again."""

from functools import partial
from pathlib import Path

import pytest
import repair
import repair_runs
import repair_table
import stored
import torch
from labels import ACCURACY
from repair_runs import VARIANTS
from report import RESULTS, Report, measured
from variants import Trial

from tests import pico
from vlmc.toolchain.evaluate import Accuracy
from vlmc.toolchain.settings import PruneSettings, RepairSettings

TINY = RepairSettings(steps=2, batch=2, rank=2, pruned_questions=0)
WORK = repair_runs.Work(2, 2, PruneSettings(calibration=2), TINY, (1.0,), ("2:4", "50%"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("repair"))


@pytest.fixture(scope="module")
def found(folder: Path) -> Report:
    return repair.run([str(pico.save("llava", folder / "dense"))], WORK, stored.Store(folder / "store"), "line")


@pytest.mark.slow
def test_every_pattern_has_a_row_for_no_repair_and_every_method(found: Report, folder: Path) -> None:
    names = [row.name.removeprefix(f"{folder / 'dense'}") for row in found.rows if row.metric == ACCURACY]
    patterns = (f" {pattern}: {method}" for pattern in ("2:4", "50%") for method in ("no repair", *VARIANTS))
    assert names == [": dense", *patterns]
    spreads = [row.spread is not None for row in found.rows if row.metric == ACCURACY]
    assert sum(spreads) == 2 * len(VARIANTS), "a seed changes every repair, and nothing else"
    assert len(found.bars) == 2 * 4 + 1


@pytest.mark.slow
def test_a_second_run_reads_what_the_first_one_stored(found: Report, folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "store").glob("*.json")}
    assert len(before) == 1 + 2 + len(VARIANTS) * (1 + 2 * 2)
    again = repair.run([str(folder / "dense")], WORK, stored.Store(folder / "store", until=0), "line")
    assert again.rows == found.rows
    assert {path: path.stat().st_mtime_ns for path in (folder / "store").glob("*.json")} == before


@pytest.mark.slow
def test_a_crew_leaves_nothing_to_be_done(found: Report, folder: Path) -> None:
    store = stored.Store(folder / "by-crew")
    repair_runs.Crew(str(folder / "dense"), WORK, store, 2, partial(torch.set_num_threads, 1)).fill()
    late = repair_runs.Comparison(str(folder / "dense"), WORK, stored.Store(folder / "by-crew", until=0))
    alone = repair_runs.Comparison(late.model, WORK, stored.Store(folder / "store", until=0))
    assert late.pruned("50%").accuracy == alone.pruned("50%").accuracy
    assert late.repaired("50%", "ressa", late.rate("ressa"), 1)


def trial(overall: float) -> Trial:
    return Trial(Accuracy(overall, {"read": overall}, 10), {"repair": 1.0}, {"weights": 1})


def test_a_run_is_done_once_and_none_is_begun_when_time_is_over(tmp_path: Path) -> None:
    key = {"model": "m", "method": "ressa"}
    done = stored.Store(tmp_path).run(key, lambda: {"share": 0.5})
    late = stored.Store(tmp_path, until=0)
    assert late.run(key, lambda: {"share": 0.9}) == done
    with pytest.raises(stored.OutOfTime):
        late.run({**key, "method": "spp"}, lambda: {"share": 0.9})


@pytest.mark.parametrize("best", [0.01, 0.03, 0.3, 1.0, 9.0, 30.0])
def test_the_search_for_a_rate_goes_on_until_the_best_is_inside(best: float, tmp_path: Path) -> None:
    """On accuracies that fall with the distance to a known best rate."""
    comparison = object.__new__(repair_runs.Comparison)
    comparison.work = repair_runs.Work(2, 1, PruneSettings(), TINY, repair_runs.FIRST)
    tried: list[float] = []

    def repaired(pattern: str, method: str, rate: float, seed: int, split: str) -> Trial:
        assert (pattern, seed, split) == ("2:4", 0, "validation")
        tried.append(rate / comparison.default_rate)
        return trial(1 / (1 + max(tried[-1] / best, best / tried[-1])))

    comparison.repaired = repaired  # type: ignore[method-assign, assignment]
    chosen = comparison.rate("spp") / comparison.default_rate
    assert chosen == min(tried, key=lambda factor: max(factor / best, best / factor))
    assert max(chosen / best, best / chosen) < repair_runs.STEP
    assert all(repair_runs.ENDS[0] <= factor <= repair_runs.ENDS[1] for factor in tried)


def compared(ressa: float) -> Report:
    """Return a report on two seeds at two sparsities: every other method at 90 % at 2:4, at 80 % at 70 %."""
    rows = [measured("demo: dense", ACCURACY, [99.0], "%")]
    rows += [measured(f"demo: {method}", "peak lr", [0.005], "") for method in VARIANTS]
    bars = []
    for pattern, others in (("2:4", 0.9), ("70%", 0.8)):
        rows.append(measured(f"demo {pattern}: no repair", ACCURACY, [40.0], "%"))
        trials = {method: [trial(others), trial(others + 0.02)] for method in VARIANTS} | {"ressa": [trial(ressa)] * 2}
        for method, made in trials.items():
            values = [100 * one.accuracy.overall for one in made]
            rows.append(measured(f"demo {pattern}: {method}", ACCURACY, values, "%", rows[0]))
        bars += repair.bars_of(f"demo {pattern}", trials)
    steps = {"prune": PruneSettings().model_dump(), "repair": TINY.model_dump()}
    counts = {"questions": {"test": 10, "validation": 5}, "seeds": 2, "patterns": ["2:4", "70%"], "models": ["demo"]}
    return Report("a processor", {}, "2026-01-01", "line", rows, bars, {**counts, **steps})


def test_a_lead_counts_where_it_is_beyond_the_spread() -> None:
    values = {bar.name: (bar.value, bar.holds) for bar in compared(0.925).bars}
    assert values["demo 2:4: lead of ressa over lors"] == (1.5, False)
    assert values["demo 70%: lead of ressa over lors"] == (11.5, True)


def test_the_table_has_methods_down_and_sparsities_across() -> None:
    lines = repair_table.table(compared(0.925)).splitlines()
    assert lines[2] == "| `demo`, dense 99.0 % | peak lr | 2:4 | 70% |"
    assert "| no repair |  | 40.0 % | 40.0 % |" in lines
    assert "| `ressa` | 0.005 | 92.5 % (0.0) | 92.5 % (0.0) |" in lines
    assert "| `lors` | 0.005 | 91.0 % (2.0) | 81.0 % (2.0) |" in lines
    assert "| `lors` | +1.50 | +11.50, beyond |" in lines


def test_the_verdict_counts_the_sparsities() -> None:
    assert "ahead of `lora-remask` in 2 of 2, beyond at 70%; of `lors`" in repair_table.verdict(compared(0.925))
    assert "ahead of `lora-remask` in 0 of 2, beyond at none; of `lors`" in repair_table.verdict(compared(0.7))


def test_the_page_shows_the_results() -> None:
    page = repair.PAGE.read_text(encoding="utf-8")
    assert repair.filled(page, Report.read(RESULTS / "repair.json")) == page, "run python benchmarks/repair.py --table"
