"""The quality benchmark on a pico model: every row, in seconds."""

import pytest
import quality
from labels import ACCURACY, STARTS
from report import Report, Row
from variants import Trial

from tests import pico
from vlmc.toolchain.evaluate import Accuracy
from vlmc.toolchain.settings import PruneSettings, RepairSettings

TINY = RepairSettings(steps=2, batch=2, rank=2, lr=1e-2, pruned_questions=0)
WORK = quality.Work(questions=3, seeds=2, prune=PruneSettings(calibration=2), repair=TINY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(pico.save("llava", tmp_path_factory.mktemp("quality") / "dense"))


@pytest.fixture(scope="module")
def found(model: str) -> Report:
    return quality.run([model], WORK, "line")


def variants(rows: list[Row], metric: str) -> list[str]:
    return [row.name.rpartition(": ")[2] for row in rows if row.metric == metric]


@pytest.mark.slow
def test_every_variant_has_its_row(found: Report, model: str) -> None:
    assert variants(found.rows, ACCURACY) == [
        "dense",
        "magnitude",
        "magnitude + RESSA",
        "Wanda",
        "Wanda + RESSA",
        "Wanda + LoRA merged and re-masked",
        "SparseGPT",
        "SparseGPT + RESSA",
        "ADMM, reconstructed",
        "ADMM, reconstructed + RESSA",
        "ADMM, 70 %",
        "ADMM, 70 % + RESSA",
    ]
    assert all(row.value is not None and 0 <= row.value <= 100 for row in found.rows if row.unit == "%")
    assert found.settings["questions"] == 3
    assert found.settings["repair"]["steps"] == 2


@pytest.mark.slow
def test_repairs_are_repeated_for_every_seed(found: Report) -> None:
    repeated = {row.name.rpartition(": ")[2] for row in found.rows if row.spread is not None}
    assert repeated == {name for name in variants(found.rows, ACCURACY) if " + " in name}


@pytest.mark.slow
def test_seconds_and_bytes_have_rows(found: Report) -> None:
    steps = {row.metric for row in found.rows if row.unit == "s"}
    assert steps == {"time to prune", "time to repair", "time to merge"}
    assert variants(found.rows, "size of weights") == ["dense", "Wanda + RESSA"]


def accuracy(overall: float, worst: float = 0.5) -> Trial:
    seconds = {"prune": 60.0, "repair": 539.0, "merge": 1.0}
    return Trial(Accuracy(overall, {"read": overall, "sum": worst}, 100), seconds, {"weights": 1})


@pytest.mark.parametrize(
    ("ressa", "remasked", "holds"),
    [
        (0.9, 0.8, [True, False, True, True, True, True, True, True]),
        (0.89, 0.89, [True, False, True, False, False, True, False, True]),
        (0.82, 0.83, [True, False, True, False, False, False, False, True]),
    ],
)
def test_bars_are_what_the_issue_asks(ressa: float, remasked: float, holds: list[bool]) -> None:
    trials = {"dense": [accuracy(0.92, 0.79)], "Wanda + LoRA merged and re-masked": [accuracy(remasked), accuracy(remasked)]}
    for label in STARTS:
        trials |= {label: [accuracy(0.8)], f"{label} + RESSA": [accuracy(ressa), accuracy(ressa)]}
    assert [bar.holds for bar in quality.bars_of("demo", trials)] == holds
    assert len(quality.bars_of("another", trials)) == 6


def test_the_slowest_way_decides_the_bar_of_time() -> None:
    trials = {f"{label}{end}": [accuracy(0.9)] for label in STARTS for end in ("", " + RESSA")}
    late = Trial(trials["Wanda"][0].accuracy, {"prune": 60.1, "repair": 539.0, "merge": 1.0}, {"weights": 1})
    trials |= {"dense": [accuracy(0.9)], "Wanda + LoRA merged and re-masked": [accuracy(0.9)], "SparseGPT": [late]}
    (bar,) = (bar for bar in quality.bars_of("demo", trials) if "slowest" in bar.name)
    assert not bar.holds
