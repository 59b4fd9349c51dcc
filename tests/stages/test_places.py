"""Where a stage writes: it takes and deletes what is its own, and refuses anything else before any work."""

from pathlib import Path

import pytest

from tests import pico
from tests.artifacts import pruned
from tests.repair.material import KilledAt
from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneSettings, RepairSettings
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.stages.repair import Repair

OPTIONS = PruneSettings(target="2:4", method="magnitude", calibration=1)


def stands(folder: Path) -> Path:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    return folder / "thesis.txt"


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["p.blocks", "p.partial"])
def test_prune_leaves_folders_of_the_user(tmp_path: Path, name: str, resume: bool) -> None:
    source, kept = SavedModel.find(str(pico.save("llava", tmp_path / "dense"))), stands(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} is in the way and was not made by vlmc"):
        Prune(OPTIONS, resume=resume, progress=KilledAt(1)).run(source, tmp_path / "p", force=True)
    assert kept.read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["dense", name])


@pytest.mark.integration
def test_prune_does_not_know_of_previous_folders(tmp_path: Path) -> None:
    pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "p")
    kept = stands(tmp_path / "p.previous")
    Prune(OPTIONS).run(SavedModel.find(str(tmp_path / "dense")), tmp_path / "p", force=True)
    assert kept.read_text() == "years of work"


@pytest.mark.integration
def test_repair_leaves_folders_of_the_user(tmp_path: Path) -> None:
    source = SavedModel.find(str(pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "p").root))
    kept = stands(tmp_path / "r.checkpoints")
    with pytest.raises(InputError, match=r"r\.checkpoints is in the way and was not made by vlmc"):
        Repair(RepairSettings(steps=1, batch=1, pruned_questions=0), progress=KilledAt(1)).run(source, tmp_path / "r")
    assert kept.read_text() == "years of work"
