"""The benchmark of a pretrained model, on a pico one: its runs are done once, and say what they were."""

from pathlib import Path

import pretrained
import pytest
from pretraining import runs
from pretraining.measures import ANSWERS, TEXT
from processes import Spent
from stored import OutOfTime, Store

from vlmc.toolchain import data
from vlmc.toolchain.cli.main import run as vlmc

WORK = runs.Work(questions=7, calibration=2, steps=1, batch=2, samples=4)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder as `vlmc fetch smol` makes it, around a pico language model; commands run in this process."""
    pytest.importorskip("gguf")
    from tests.smol.material import write_gguf
    from vlmc.toolchain.smol.architecture import processor
    from vlmc.toolchain.smol.joining import blank
    from vlmc.toolchain.smol.language import read_tokenizer

    write_gguf(tmp_path / "pico.gguf")
    blank(tmp_path / "pico.gguf").half().save_pretrained(tmp_path / "dense")
    processor(read_tokenizer(tmp_path / "pico.gguf")).save_pretrained(tmp_path / "dense")

    def spend(arguments: tuple[str, ...], threads: int | None) -> Spent:
        assert vlmc([*arguments, "--quiet"]) == 0
        return Spent(1.0, 2_000_000, None)

    monkeypatch.setattr(runs, "spend", spend)
    return str(tmp_path / "dense")


@pytest.mark.integration
def test_a_run_is_pruned_repaired_measured_and_done_once(model: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = runs.Runs(runs.replace(WORK, model=model), Store(store))
    found = done.repaired("magnitude", "RESSA", 0, runs.MIXED)
    assert set(found) == {"right", ANSWERS, TEXT, "repair"}
    assert 0 <= found["right"]["all"] <= 1 < found[TEXT]
    assert found["repair"] == {"seconds": 1.0, "peak": 2_000_000}
    assert not list(store.glob("run-*")), "what was measured is deleted"
    later = runs.Runs(runs.replace(WORK, model=model), Store(store, until=0))
    assert later.repaired("magnitude", "RESSA", 0, runs.MIXED) == found
    assert later.pruned("magnitude")["prune"] == {"seconds": 1.0, "peak": 2_000_000}
    for other in (lambda: later.pruned("Wanda"), lambda: later.repaired("magnitude", "RESSA", 1, runs.MIXED)):
        with pytest.raises(OutOfTime):
            other()


def test_a_fifth_of_the_labels_of_each_kind_is_another_ones() -> None:
    samples = list(data.load("smol", "train", 140))
    changed = runs.with_wrong_answers(samples)
    wrong = [one.kind for one, other in zip(samples, changed, strict=True) if one.answer != other.answer]
    assert {kind: wrong.count(kind) for kind in set(wrong)} == dict.fromkeys({sample.kind for sample in samples}, 4)
    assert [one.question for one in samples] == [one.question for one in changed]


def found(right: float, text: float) -> runs.Found:
    return {"right": {"all": right, "name": right}, ANSWERS: text, TEXT: text}


def test_bars_are_held_against_dense_wanda_and_the_spread() -> None:
    best = f"{pretrained.BEST} + {pretrained.RESSA}"
    results = {
        "dense": [found(0.8, 20)],
        pretrained.WEAK: [found(0.1, 120)],
        pretrained.BEST: [found(0.3, 30)],
        best: [found(0.76, 24), found(0.78, 24)],
        f"{pretrained.BEST} + {pretrained.REMASKED}": [found(0.70, 25), found(0.74, 25)],
    }
    bars = {bar.name: (bar.value, bar.holds) for bar in pretrained.bars_of(results)}
    assert list(bars.values()) == [(0.1, True), (96.25, True), (1.2, True), (5.0, True)]
    results[pretrained.BEST] = [found(0.3, 60)]
    assert not pretrained.bars_of(results)[0].holds
    weak = f"{pretrained.WEAK} + {pretrained.RESSA}"
    results |= {weak: [found(0.5, 60)], f"{pretrained.WEAK} + {pretrained.REMASKED}": [found(0.5, 60)]}
    assert not [bar for bar in pretrained.bars_of(results) if weak in bar.name]  # one seed has no spread
    for name in (weak, f"{pretrained.WEAK} + {pretrained.REMASKED}"):
        results[name].append(found(0.54, 60))
    assert [(bar.value, bar.holds) for bar in pretrained.bars_of(results) if weak in bar.name] == [(0.0, False)]
    assert pretrained.bars_of({"dense": [found(0.8, 20)]}) == []


def test_rows_and_table_hold_every_variant() -> None:
    results = {"dense": [found(0.8, 20)], "Wanda": [{**found(0.1, 120), "prune": {"seconds": 90.0, "peak": 1e9}}]}
    rows = pretrained.rows_of(results)
    assert [row.metric for row in rows if row.name == "Wanda"] == [
        "accuracy",
        ANSWERS,
        TEXT,
        "accuracy, name",
        "time to prune",
        "peak memory, prune",
    ]
    made = pretrained.table(pretrained.report("line", rows, pretrained.bars_of(results), {}))
    assert "| Wanda | 10.0 % | 120.0 | 120.0 | 90 s |" in made
