"""The quality benchmark and the search on the validation split, both on a pico model: every row, in seconds."""

from pathlib import Path

import pytest
import quality
import remasked
import validation
from labels import ACCURACY
from report import Report, Row
from variants import Trial

from tests import pico
from tests.repair import material
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.evaluate import Accuracy
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.settings import PruneSettings, RepairSettings

TINY = RepairSettings(steps=2, batch=2, rank=2, lr=1e-2)
WORK = quality.Work(questions=3, seeds=2, prune=PruneSettings(calibration=2), repair=TINY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(pico.save("llava", tmp_path_factory.mktemp("quality") / "dense"))


@pytest.fixture(scope="module")
def found(model: str) -> Report:
    return quality.run([model], WORK, "line")


def variants(rows: list[Row], metric: str) -> list[str]:
    return [row.name.rpartition(": ")[2] for row in rows if row.metric == metric]


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
    ]
    assert all(row.value is not None and 0 <= row.value <= 100 for row in found.rows if row.unit == "%")
    assert found.settings["questions"] == 3
    assert found.settings["repair"]["steps"] == 2


def test_repairs_are_repeated_for_every_seed(found: Report) -> None:
    repeated = {row.name.rpartition(": ")[2] for row in found.rows if row.spread is not None}
    assert repeated == {name for name in variants(found.rows, ACCURACY) if " + " in name}


def test_seconds_and_bytes_have_rows(found: Report) -> None:
    steps = {row.metric for row in found.rows if row.unit == "s"}
    assert steps == {"time to prune", "time to repair", "time to merge"}
    assert variants(found.rows, "size of weights") == ["dense", "Wanda + RESSA"]


def accuracy(overall: float, worst: float = 0.5) -> Trial:
    return Trial(Accuracy(overall, {"read": overall, "sum": worst}, 100), {"repair": 1.0}, {"weights": 1})


@pytest.mark.parametrize(
    ("ressa", "remasked", "holds"),
    [
        (0.9, 0.8, [True, False, True, True, True]),
        (0.8, 0.8, [True, False, True, False, False]),
    ],
)
def test_bars_are_what_the_issue_asks(ressa: float, remasked: float, holds: list[bool]) -> None:
    trials = {
        "dense": [accuracy(0.92, 0.79)],
        "Wanda": [accuracy(0.8)],
        "Wanda + RESSA": [accuracy(ressa), accuracy(ressa)],
        "Wanda + LoRA merged and re-masked": [accuracy(remasked), accuracy(remasked)],
    }
    assert [bar.holds for bar in quality.bars_of("demo", trials)] == holds
    assert len(quality.bars_of("another", trials)) == 3


@pytest.mark.parametrize("family", pico.DEPLOYABLE)
def test_lora_remasked_moves_the_kept_weights_only(family: str, tmp_path: Path) -> None:
    pruned = material.pruned(material.dense(family, tmp_path / "dense"), tmp_path / "pruned")
    before, after = pruned.load(), remasked.lora_remasked(pruned, TINY, 0, tmp_path / "checkpoints")
    masks = load_masks(pruned.folder, Artifact.open(pruned.folder).manifest)
    assert all((after.get_parameter(f"{name}.weight")[~mask] == 0).all() for name, mask in masks.items())
    moved = {name for name, weight in before.named_parameters() if not weight.equal(after.get_parameter(name))}
    adapted = {*masks, *pruned.family.adaptable(before)}
    assert moved <= {f"{name}.weight" for name in adapted}
    assert len(moved) > len(adapted) / 2


def test_the_search_measures_every_setting(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "neighbours", lambda base, rate: {"slower": base.model_copy(update={"lr": rate / 2})})
    found = validation.run([model], TINY, 3, "line")
    assert variants(found.rows, ACCURACY) == ["defaults", "slower"]
    assert [row.value for row in found.rows if row.metric == "peak lr"] == [TINY.lr, TINY.lr / 2]
    assert len(found.bars) == 1


def test_the_search_changes_one_setting_at_a_time() -> None:
    base, rate = RepairSettings(), 4e-3
    for options in validation.neighbours(base, rate).values():
        assert options != base
        changed = {name for name in RepairSettings.model_fields if getattr(options, name) != getattr(base, name)}
        assert changed - {"alpha"} in ({"rank"}, {"lr"}, {"steps"}, {"task_weight"}, {"kl"})
        assert options.alpha / options.rank == base.alpha / base.rank
