"""The study from start to end: the orchestration on made-up measures, and one real run on a pico model of each family."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import pico
from tests.repair.material import Killed, KilledAt, encoder, samples
from tests.study.material import made_up
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain import data
from vlmc.toolchain.evaluate import answer_all
from vlmc.toolchain.evaluate.compare import measure
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneSettings, SweepSettings
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.study import Plan, Record, SplitStudy, split
from vlmc.toolchain.study.record import Measured

OPTIONS = SweepSettings(sums="100", shares="60:40,50:50", targets="2:4,50%", calibration=2, count=3)
TOWERS = [("none", "none"), ("60%", "40%"), ("50%", "50%"), ("2:4", "2:4"), ("2:4", "none"), ("none", "2:4")]
TOWERS += [("50%", "none"), ("none", "50%")]  # both at 50% is measured once, as a share
FILES = ["split.png", "sweep.json", "where.png"]
Asked = list[tuple[str, str]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    return SavedModel.find(str(pico.save("llava", tmp_path_factory.mktemp("study") / "dense")))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Put made-up measures in the place of pruning, questioning and drawing; return the list of what was asked for."""
    seen: Asked = []

    def fake(self: split.Bench, options: PruneSettings | None) -> Measured:
        seen.append(("none", "none") if options is None else (str(options.vision), str(options.language)))
        return made_up(*seen[-1])

    def draw(record: Record, folder: Path) -> None:
        for name in ("split.png", "where.png"):
            (folder / name).write_text(f"{record.left} left")

    monkeypatch.setattr(split.Bench, "measure", fake)
    monkeypatch.setattr(split.figures, "draw", draw)
    return seen


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.integration
def test_every_variant_is_measured_once_and_has_its_rows(source: SavedModel, tmp_path: Path, asked: Asked) -> None:
    found = SplitStudy(OPTIONS).run(source, tmp_path / "out")
    assert asked == TOWERS
    assert [(row.vision, row.language) for row in found.rows] == [*TOWERS[:6], ("50%", "50%"), *TOWERS[6:]]
    dense = made_up("none", "none").accuracy
    for row in found.rows:
        made = made_up(row.vision, row.language)
        assert (row.accuracy, row.zeros) == (made.accuracy, made.zeros)
        assert row.relative == pytest.approx(made.accuracy / dense, abs=1e-6)
        assert row.sparsity == pytest.approx(made.zeros / sum(found.prunable.values()), abs=1e-6)
    assert found.left == 0
    assert sorted(contents(tmp_path / "out")) == FILES


@pytest.mark.slow
def test_killed_after_any_variant_it_goes_on_and_ends_in_the_same_bytes(
    source: SavedModel, tmp_path: Path, asked: Asked
) -> None:
    SplitStudy(OPTIONS).run(source, tmp_path / "unbroken")
    asked.clear()
    for count in range(1, len(TOWERS) + 1):
        with pytest.raises(Killed):
            SplitStudy(OPTIONS, progress=KilledAt(count)).run(source, tmp_path / "out")
        assert asked == TOWERS[:count], "what was measured before is not measured again"
        assert sorted(contents(tmp_path / "out")) == ["sweep.json"]
    SplitStudy(OPTIONS).run(source, tmp_path / "out")
    assert asked == TOWERS
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")


@pytest.mark.integration
def test_a_finished_study_only_draws_again(source: SavedModel, tmp_path: Path, asked: Asked) -> None:
    SplitStudy(OPTIONS).run(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "split.png").unlink()
    asked.clear()
    SplitStudy(OPTIONS).run(source, tmp_path / "out")
    assert not asked
    assert contents(tmp_path / "out") == before


def other_options(source: SavedModel, folder: Path) -> tuple[SplitStudy, SavedModel]:
    return SplitStudy(OPTIONS.model_copy(update={"method": "magnitude"})), source


def other_seed(source: SavedModel, folder: Path) -> tuple[SplitStudy, SavedModel]:
    return SplitStudy(OPTIONS, seed=1), source


def other_model(source: SavedModel, folder: Path) -> tuple[SplitStudy, SavedModel]:
    return SplitStudy(OPTIONS), SavedModel(source.name, pico.save("llava", folder / "other", seed=1))


@pytest.mark.integration
@pytest.mark.parametrize("other", [other_options, other_seed, other_model])
def test_another_study_is_refused_unless_forced(
    source: SavedModel,
    tmp_path: Path,
    asked: Asked,
    other: Callable[[SavedModel, Path], tuple[SplitStudy, SavedModel]],
) -> None:
    SplitStudy(OPTIONS).run(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    study, model = other(source, tmp_path)
    asked.clear()
    with pytest.raises(InputError, match="holds a study with other inputs or options"):
        study.run(model, tmp_path / "out")
    assert not asked
    assert contents(tmp_path / "out") == before
    study.run(model, tmp_path / "out", force=True)
    assert asked == TOWERS
    assert contents(tmp_path / "out") != before


def test_other_versions_are_another_study(
    source: SavedModel, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    SplitStudy(OPTIONS).run(source, tmp_path / "out")
    monkeypatch.setattr(split, "versions", lambda: {"vlmc": "9"})
    with pytest.raises(InputError, match="add --force"):
        SplitStudy(OPTIONS).run(source, tmp_path / "out")


@pytest.mark.integration
def test_the_same_model_under_another_name_is_the_same_study(source: SavedModel, tmp_path: Path, asked: Asked) -> None:
    SplitStudy(OPTIONS).run(source, tmp_path / "out")
    asked.clear()
    SplitStudy(OPTIONS).run(SavedModel("renamed", source.folder), tmp_path / "out")
    assert not asked


@pytest.mark.integration
def test_a_folder_of_something_else_is_left_alone(source: SavedModel, tmp_path: Path, asked: Asked) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("notes", "file"):
        with pytest.raises(InputError, match="is not a study of vlmc"):
            SplitStudy(OPTIONS).run(source, tmp_path / name, force=True)
    (tmp_path / "empty").mkdir()
    SplitStudy(OPTIONS).run(source, tmp_path / "empty")
    (tmp_path / "empty" / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a study: add --force"):
        SplitStudy(OPTIONS).run(source, tmp_path / "empty")
    SplitStudy(OPTIONS).run(source, tmp_path / "empty", force=True)
    assert not asked[len(TOWERS) * 2 :]


def test_without_matplotlib_nothing_is_begun(
    source: SavedModel, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacks, match=r"matplotlib is not installed: pip install 'vlmc\[all\]'"):
        SplitStudy(OPTIONS).run(source, tmp_path / "out")
    assert not asked
    assert not (tmp_path / "out").exists()


def test_a_token_policy_is_for_variants_whose_language_is_pruned() -> None:
    study = SplitStudy(OPTIONS.model_copy(update={"tokens": "text"}))
    chosen = {one.name: study.settings_of(one).tokens for one in Plan.of(study.options).variants if one.group == "2:4"}
    assert chosen == {"V + L": "text", "V only": "all", "L only": "text"}


def test_the_questions_data_calibrates_unless_another_is_named(source: SavedModel) -> None:
    one = Plan.of(OPTIONS).variants[1]
    assert SplitStudy(OPTIONS.model_copy(update={"data": "q.jsonl"})).settings_of(one).data == "q.jsonl"
    changes = {"data": "q.jsonl", "calibration_data": "demo"}
    assert SplitStudy(OPTIONS.model_copy(update=changes)).settings_of(one).data == "demo"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"targets": "2:4,32:64"},
            "--targets 32:64: the inputs of 27 of 32 layers .* add --allow-dense to leave them dense",
        ),
        ({"targets": "2:4,2:7", "allow_dense": True}, "--targets 2:7: .* take it out of --targets"),
        ({"calibration_data": "gone.jsonl"}, "no data set at gone.jsonl"),
        ({"method": "magnitude", "tokens": "text"}, "magnitude uses no calibration tokens"),
    ],
)
def test_what_would_stop_it_halfway_stops_it_at_once(
    source: SavedModel, tmp_path: Path, asked: Asked, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        SplitStudy(OPTIONS.model_copy(update=changes)).run(source, tmp_path / "out")
    assert not asked
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_a_variant_that_fails_leaves_what_was_done(
    source: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk")

    monkeypatch.setattr("vlmc.toolchain.stages.prune.save_masks", fail)
    with pytest.raises(OSError, match="disk"):
        SplitStudy(OPTIONS).run(source, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == ["sweep.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.slow
def test_rows_are_what_the_steps_alone_come_to(source: SavedModel, tmp_path: Path) -> None:
    study = SplitStudy(real(source, tmp_path))
    found = study.run(source, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == FILES
    assert found.rows[0].accuracy == 1
    assert 0 < sum(row.accuracy for row in found.rows[1:]) < 4, "the test needs answers that pruning changes, but not all"
    variant, row = Plan.of(study.options).variants[3], found.rows[3]
    assert (row.name, row.zeros) == ("V only", found.prunable["vision"] / 8)
    pruned = SavedModel("pruned", Prune(study.settings_of(variant)).run(source, tmp_path / "pruned").root)
    asked = data.load(study.options.data, "test")
    assert row.accuracy == measure(pruned, asked, Progress(quiet=True), title="pruned").overall
    model = pruned.load()
    weights = [model.get_parameter(f"{layer}.weight") for layer in pruned.family.prunable(model)]
    zeros, total = sum(int(weight.eq(0).sum()) for weight in weights), sum(weight.numel() for weight in weights)
    assert (row.zeros, row.sparsity) == (zeros, round(zeros / total, 6))


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(pico.USUAL))
def test_the_order_of_the_shares_changes_no_row(tmp_path: Path, family: str) -> None:
    source = SavedModel.find(str(pico.save(family, tmp_path / "dense")))
    options = real(source, tmp_path)
    one, other = (
        SplitStudy(options.model_copy(update={"shares": shares})).run(source, tmp_path / shares).rows
        for shares in ("75:25,25:75", "25:75,75:25")
    )
    assert {row.name: row for row in one} == {row.name: row for row in other}
    assert one != other


def real(source: SavedModel, folder: Path) -> SweepSettings:
    """Write questions that the dense model answers right; return options that prune it lightly."""
    model, asked = source.load(), samples(5)
    answers = answer_all(model, encoder(source), asked, Progress(quiet=True), title="dense")
    lines = []
    for number, (one, answer) in enumerate(zip(asked, answers, strict=True)):
        one.load_image().save(folder / f"{number}.png")
        turns = [{"from": "human", "value": f"<image>\n{one.question}"}, {"from": "gpt", "value": answer}]
        lines.append(json.dumps({"image": f"{number}.png", "conversations": turns}))
    (folder / "asked.jsonl").write_text("\n".join(lines))
    return SweepSettings(sums="20", shares="75:25", targets="7:8", calibration=2, data=str(folder / "asked.jsonl"))
