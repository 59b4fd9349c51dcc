"""What a step reads is looked at before it loads a model or writes anything, and its digest goes into the history."""

import shutil
from pathlib import Path

import pytest

from tests.repair import material
from vlmc.runtime.errors import InputError
from vlmc.toolchain import builtin, data
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneSettings, RepairSettings
from vlmc.toolchain.stages.base import ArtifactStage
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.stages.repair import Repair


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    return material.dense("llava", tmp_path_factory.mktemp("dense") / "dense")


@pytest.fixture(scope="module")
def pruned(dense: SavedModel) -> SavedModel:
    return material.pruned(dense, dense.folder.with_name("pruned"))  # beside it, where repair finds the dense model


def repairing(source: str, **more: object) -> RepairSettings:
    return RepairSettings(data=source, steps=4, batch=2, rank=2, checkpoint_every=1, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Prune(PruneSettings(data="trian.jsonl")), "no data set at trian.jsonl"),
        (Prune(PruneSettings(columns="picture=img")), "'picture' is not one of"),
        (Repair(repairing("trian.jsonl")), "no data set at trian.jsonl"),
        (Repair(repairing("demo", validate_every=1, validation="gone.jsonl")), "no data set at gone.jsonl"),
    ],
)
def test_a_wrong_input_is_found_first(
    stage: ArtifactStage,
    message: str,
    dense: SavedModel,
    pruned: SavedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("load", "stream"):
        monkeypatch.delattr(SavedModel, name)
    with pytest.raises(InputError, match=message):
        stage.run(dense if isinstance(stage, Prune) else pruned, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_row_that_is_broken_is_found_before_the_training(pruned: SavedModel, tmp_path: Path) -> None:
    path = builtin.data_sets()["demo"].write(tmp_path / "data", "train", 6)
    path.write_text(path.read_text() + '{"image": "images/000001.png", "conversations": []}\n')
    with pytest.raises(InputError, match=r"train\.jsonl, line 7: conversations must be"):
        Repair(repairing(str(path))).run(pruned, tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["data"]


@pytest.mark.integration
def test_a_stopped_repair_goes_on_with_the_same_data_only_wherever_it_lies(pruned: SavedModel, tmp_path: Path) -> None:
    path, moved = builtin.data_sets()["demo"].write(tmp_path / "data", "train", 6), tmp_path / "moved"
    with pytest.raises(material.Killed):
        Repair(repairing(str(path)), progress=material.KilledAt(3)).run(pruned, tmp_path / "out")
    shutil.move(path.parent, moved)
    image = moved / "images" / "000006.png"
    content = image.read_bytes()
    image.write_bytes(content[:-1] + b"\0")
    again = repairing(str(moved / path.name))
    with pytest.raises(InputError, match=r"another run: its data\.training was '6:"):
        Repair(again, resume=True).run(pruned, tmp_path / "out")
    image.write_bytes(content)
    result = Repair(again, resume=True, progress=material.KilledAt(4 + 1)).run(pruned, tmp_path / "out")
    found = result.manifest.history[-1].measures["data"]
    assert found == {"training": fingerprint(data.load(str(moved / path.name), "train"))}
