"""repair as a stage: what it takes, what it leaves, and that a killed run ends in the bytes of an unbroken one."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import pico
from tests.repair import material
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import CheckFailed, EnvironmentLacks, InputError
from vlmc.toolchain.evaluate import answer_all
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.training import Trainer
from vlmc.toolchain.settings import RepairSettings
from vlmc.toolchain.stages.repair import Repair

pytestmark = pytest.mark.integration


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def repair(source: SavedModel, destination: Path, **options: object) -> Artifact:
    stage = Repair(material.OPTIONS.model_copy(update=options), samples=material.samples())
    return stage.run(source, destination)


@pytest.fixture(scope="module", params=pico.USUAL)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    folder = tmp_path_factory.mktemp(request.param)
    return material.pruned(material.dense(request.param, folder / "dense"), folder / "pruned")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    """A pruned LLaVA, beside its dense origin; no test changes it."""
    folder = tmp_path_factory.mktemp("llava")
    return material.pruned(material.dense("llava", folder / "dense"), folder / "pruned")


@pytest.fixture(scope="module")
def killed(llava: SavedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a run that was killed after its sixth step."""
    destination = tmp_path_factory.mktemp("killed") / "out"
    with pytest.raises(material.Killed):
        Repair(material.OPTIONS, samples=material.samples(), progress=material.KilledAt(6)).run(llava, destination)
    return destination.with_name("out.checkpoints")


def test_the_result_is_the_source_and_an_adapter(source: SavedModel, tmp_path: Path) -> None:
    before = files(source.folder)
    result = repair(source, tmp_path / "adapted")
    assert files(source.folder) == before
    after = files(result.root)
    kept = before.keys() - {"manifest.json", "README.md"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    added = {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "reports/repair.csv"}
    assert after.keys() - before.keys() == added

    assert result.manifest.state == "adapted"
    assert result.manifest.layers == Artifact.open(source.folder).manifest.layers
    step = result.manifest.history[-1]
    assert (step.stage, step.parent) == ("repair", source.digest)
    assert step.config["rank"] == material.OPTIONS.rank
    assert step.measures["last_loss"] < step.measures["first_loss"]
    targets = json.loads(after["adapter/adapter_config.json"])["target_modules"]
    model = source.load()
    assert set(targets) == {*source.family.prunable(model), *source.family.adaptable(model)}

    header, *rows = after["reports/repair.csv"].decode().splitlines()
    assert header == "step,lr,loss,task,kl,hidden,norm,skipped,validation"
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 21))
    assert not list(tmp_path.glob("adapted.*"))


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bytes(source: SavedModel, tmp_path: Path) -> None:
    unbroken = repair(source, tmp_path / "unbroken")
    broken = Repair(material.OPTIONS, samples=material.samples(), progress=material.KilledAt(13))
    with pytest.raises(material.Killed):
        broken.run(source, tmp_path / "resumed")
    assert not (tmp_path / "resumed").exists()
    assert (tmp_path / "resumed.checkpoints" / "state.safetensors").is_file()
    # how often a run is checkpointed does not change what it is
    options = material.OPTIONS.model_copy(update={"checkpoint_every": 7})
    resumed = Repair(options, resume=True, samples=material.samples()).run(source, tmp_path / "resumed")
    assert files(resumed.root) == files(unbroken.root)
    assert not (tmp_path / "resumed.checkpoints").exists()


@pytest.mark.slow
def test_any_number_of_workers_ends_in_the_same_bytes(llava: SavedModel, tmp_path: Path) -> None:
    """Killed with some, and resumed with others; more passes a step give other bytes, with workers as without."""
    changes = {"accumulate": 2, "steps": 6, "checkpoint_every": 3}
    whole = repair(llava, tmp_path / "whole", **changes)
    options = material.OPTIONS.model_copy(update=changes | {"workers": 3})
    with pytest.raises(material.Killed):
        Repair(options, samples=material.samples(), progress=material.KilledAt(5)).run(llava, tmp_path / "broken")
    options = options.model_copy(update={"workers": 1})
    resumed = Repair(options, resume=True, samples=material.samples()).run(llava, tmp_path / "broken")
    assert files(resumed.root) == files(whole.root)


@pytest.mark.slow
def test_resuming_does_not_train_again_what_was_trained(llava: SavedModel, tmp_path: Path) -> None:
    with pytest.raises(material.Killed):
        Repair(material.OPTIONS, samples=material.samples(), progress=material.KilledAt(13)).run(llava, tmp_path / "out")
    # ten of twenty steps are in the checkpoint: eleven more would be one too many
    progress = material.KilledAt(10 + 11)
    Repair(material.OPTIONS, resume=True, samples=material.samples(), progress=progress).run(llava, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "key"),
    [({"lr": 1e-3}, "lr"), ({"steps": 30}, "steps"), ({"seed": 1}, "seed"), ({"samples": 9}, r"data\.training")],
)
def test_another_run_is_not_gone_on_from(
    change: dict[str, int], key: str, llava: SavedModel, killed: Path, tmp_path: Path
) -> None:
    shutil.copytree(killed, tmp_path / "out.checkpoints")
    options = {name: value for name, value in change.items() if name in RepairSettings.model_fields}
    other = Repair(
        material.OPTIONS.model_copy(update=options),
        change.get("seed", 0),
        resume=True,
        samples=material.samples(change.get("samples", 12)),
    )
    with pytest.raises(InputError, match=f"another run: its {key} was"):
        other.run(llava, tmp_path / "out")


def test_without_resume_a_killed_run_starts_anew(llava: SavedModel, killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "out.checkpoints")
    fresh = repair(llava, tmp_path / "out", lr=1e-3, steps=2)
    assert fresh.manifest.history[-1].config["lr"] == 1e-3


def test_the_seed_decides_the_result(llava: SavedModel, tmp_path: Path) -> None:
    one = repair(llava, tmp_path / "one", steps=2)
    options = material.OPTIONS.model_copy(update={"steps": 2})
    other = Repair(options, 1, samples=material.samples()).run(llava, tmp_path / "other")
    assert one.digest != other.digest


def test_only_a_pruned_artifact_is_repaired(llava: SavedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is dense: repair a pruned artifact, as 'vlmc prune .*' writes it"):
        repair(SavedModel.find(str(llava.folder.parent / "dense")), tmp_path / "out")
    repair(llava, tmp_path / "adapted", steps=1)
    with pytest.raises(InputError, match="is already adapted: repair a pruned artifact"):
        repair(SavedModel.find(str(tmp_path / "adapted")), tmp_path / "out")


def test_a_changed_weight_is_noticed(llava: SavedModel, tmp_path: Path) -> None:
    shutil.copytree(llava.folder, tmp_path / "changed")
    path = tmp_path / "changed" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not the file that the manifest lists"):
        repair(SavedModel.find(str(tmp_path / "changed")), tmp_path / "out")


def test_the_teacher_must_be_the_model_that_was_pruned(llava: SavedModel, tmp_path: Path) -> None:
    other = pico.save("llava", tmp_path / "other", seed=1)
    stage = Repair(material.OPTIONS, dense=str(other), samples=material.samples())
    with pytest.raises(
        InputError, match=r"is not the model that .* was pruned from \(digest differs\): give that one with --dense"
    ):
        stage.run(llava, tmp_path / "out")
    with pytest.raises(InputError, match="no model at"):
        Repair(material.OPTIONS, dense=str(tmp_path / "nowhere"), samples=material.samples()).run(llava, tmp_path / "out")


def test_a_dense_model_that_moved_gives_the_same_bytes(llava: SavedModel, tmp_path: Path) -> None:
    expected = repair(llava, tmp_path / "before", steps=2)
    home, moved = llava.folder.parent / "dense", tmp_path / "moved"
    home.rename(moved)
    try:
        options = material.OPTIONS.model_copy(update={"steps": 2})
        stage = Repair(options, dense=str(moved), samples=material.samples())
        assert files(stage.run(llava, tmp_path / "after").root) == files(expected.root)
    finally:
        moved.rename(home)


def test_files_are_copied_where_they_cannot_be_linked(
    llava: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    linked = repair(llava, tmp_path / "linked", steps=1)
    monkeypatch.setattr(os, "link", refuse)
    copied = repair(llava, tmp_path / "copied", steps=1)
    assert files(copied.root) == files(linked.root)
    weights = "model.safetensors"
    assert (linked.root / weights).stat().st_ino == (llava.folder / weights).stat().st_ino
    assert (copied.root / weights).stat().st_ino != (llava.folder / weights).stat().st_ino


@pytest.mark.slow
def test_a_sparsegpt_model_is_repaired(tmp_path: Path) -> None:
    """SparseGPT moves the kept weights too: the teacher cannot be the pruned model without its adapters."""
    source = material.pruned(material.dense("blip-2", tmp_path / "dense"), tmp_path / "pruned", "sparsegpt")
    result = repair(source, tmp_path / "adapted")
    measures = result.manifest.history[-1].measures
    assert measures["last_loss"] < measures["first_loss"]


@pytest.mark.slow
def test_early_stopping_ends_in_the_best_and_a_killed_run_in_the_same_bytes(llava: SavedModel, tmp_path: Path) -> None:
    """At a rate far too high the loss on other questions rises soon."""
    options = material.OPTIONS.model_copy(
        update={"lr": 0.3, "validate_every": 2, "patience": 2, "checkpoint_every": 3, "validation_count": 8}
    )

    def stage(progress: Progress | None = None, *, resume: bool = False) -> Repair:
        given = {"samples": material.samples(), "validation": material.samples(10), "progress": progress, "resume": resume}
        return Repair(options, **given)  # type: ignore[arg-type]

    whole = stage().run(llava, tmp_path / "whole")
    measures = whole.manifest.history[-1].measures
    assert measures["steps_done"] < options.steps
    assert measures["best_step"] == measures["steps_done"] - 4
    with pytest.raises(material.Killed):
        stage(material.KilledAt(measures["best_step"] + 3)).run(llava, tmp_path / "broken")
    assert files(stage(resume=True).run(llava, tmp_path / "broken").root) == files(whole.root)


def test_stopping_early_needs_data_to_validate_on(llava: SavedModel, tmp_path: Path) -> None:
    options = material.OPTIONS.model_copy(update={"patience": 1, "data": "mine.jsonl"})
    with pytest.raises(InputError, match=r"nothing to validate mine\.jsonl on: name a data set with --validation"):
        Repair(options, samples=material.samples()).run(llava, tmp_path / "out")


@pytest.mark.parametrize(
    ("steps", "validated", "rooms"), [(3, False, [0]), (4, False, [7_000_000]), (60, True, [3_500_000, 3_500_000])]
)
def test_encoded_samples_are_kept_only_where_they_are_seen_again(
    steps: int, validated: bool, rooms: list[int], llava: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps of four see each of twelve samples once; validation has half of the room where it is done twice."""
    options = material.OPTIONS.model_copy(update={"steps": steps, "sample_cache": 7})
    stage = Repair(options, samples=material.samples(), validation=material.samples(3) if validated else None)
    found: list[int] = []

    def stop(trainer: Trainer, *_: object) -> None:
        found.extend(one.cache.room for one in (trainer.prefetch.batches, trainer.validation) if one is not None)
        raise material.Killed

    monkeypatch.setattr(Trainer, "train", stop)
    with pytest.raises(material.Killed):
        stage.run(llava, tmp_path / "out")
    assert found == rooms
    assert RepairSettings().sample_cache == 100


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_the_triton_kernels_need_a_gpu(llava: SavedModel, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match=r"--kernel triton needs an NVIDIA GPU .*; --kernel tiled runs everywhere"):
        repair(llava, tmp_path / "out", kernel="triton")
    assert not list(tmp_path.iterdir())


def test_the_pruned_models_accuracy_is_kept_in_the_history(llava: SavedModel, tmp_path: Path) -> None:
    long = replace(material.samples(1)[0], answer="seven " * 32)
    options = material.OPTIONS.model_copy(update={"steps": 1, "pruned_questions": 5})
    model, some = llava.load(), material.samples()
    alike = answer_all(model, material.encoder(llava), some, Progress(quiet=True), title="all")
    asked = [replace(one, answer=text or "?") for one, text in zip(some, [*alike[:3], "no", "no"], strict=False)]
    stage = Repair(options, samples=some, validation=[*asked[:2], long, *asked[2:], *some])
    found = stage.run(llava, tmp_path / "out").manifest.history[-1].measures["pruned_accuracy"]
    assert (found["count"], found["overall"]) == (4, 0.75)  # of the first five, the long answer is not asked for
    nothing = Repair(options.model_copy(update={"pruned_questions": 0}), samples=some, validation=some)
    assert "pruned_accuracy" not in nothing.run(llava, tmp_path / "none").manifest.history[-1].measures


def test_a_run_that_moved_nothing_fails_in_one_line(llava: SavedModel, tmp_path: Path) -> None:
    with pytest.raises(
        CheckFailed, match=r"repair trained nothing: all 3 steps had .* not finite \(loss nan, .*; lower --lr"
    ):
        repair(llava, tmp_path / "out", hidden=1e308, temperature=1e20, steps=3)
    assert not (tmp_path / "out").exists()
