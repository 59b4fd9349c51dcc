"""The options of repair: which of them decide the result, and what they may be."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.repair import material
from tests.repair.training.test_reports import Writer
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import SAYS_WHICH_DATA, RepairSettings
from vlmc.toolchain.stages.repair import NO_RESULT, Repair
from vlmc.toolchain.stages.run_folder import RunFolder, deciding

NOT_DECIDING: dict[str, Any] = {
    "checkpoint_every": 1,
    "checkpoint_minutes": 1e-9,
    "gradient_checkpointing": True,
    "max_bad": "50%",
    "sample_cache": 0,
    "tensorboard": "curves",
    "workers": 2,
}
DECIDING: dict[str, Any] = {
    "accumulate": 2,
    "alpha": 4.0,
    "batch": 3,
    "cache": "sampled",
    "cache_tokens": 8,
    "clip": 0.5,
    "hidden": 0.5,
    "hold_out": "7",
    "kernel": "triton",
    "kl": "reverse",
    "lr": 1e-3,
    "method": "lors",
    "patience": 3,
    "precision": "bf16",
    "pruned_questions": 1,
    "rank": 2,
    "samples": 9,
    "steps": 3,
    "task_weight": 0.25,
    "teacher": "copy",
    "temperature": 2.0,
    "validate_every": 1,
    "validation_count": 200,
    "warm_up": 7,
}
OPTIONS = material.OPTIONS.model_copy(update={"steps": 2, "batch": 8})
"""The second step begins the second epoch of twelve samples, so that a sample cache is used."""


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    folder = tmp_path_factory.mktemp("llava")
    return material.pruned(material.dense("llava", folder / "dense"), folder / "pruned")


@pytest.fixture(scope="module")
def plain(llava: SavedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run with the usual options."""
    return files(stage(OPTIONS).run(llava, tmp_path_factory.mktemp("plain") / "out"))


def stage(options: RepairSettings, *, resume: bool = False) -> Repair:
    return Repair(options, resume=resume, samples=material.samples(), validation=material.samples(3))


def files(artifact: Artifact) -> dict[str, bytes]:
    return {str(path.relative_to(artifact.root)): path.read_bytes() for path in artifact.root.rglob("*") if path.is_file()}


def test_every_option_is_one_or_the_other() -> None:
    assert NOT_DECIDING.keys() == NO_RESULT
    assert DECIDING.keys() == RepairSettings.model_fields.keys() - NO_RESULT - SAYS_WHICH_DATA
    assert deciding(stage(OPTIONS).settings()).keys() == DECIDING.keys() | {"seed"}
    changed = NOT_DECIDING | DECIDING
    assert not [name for name, value in changed.items() if value == getattr(OPTIONS, name)]
    RepairSettings(**changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_DECIDING)
def test_what_does_not_decide_the_result_leaves_the_same_bytes(
    name: str, llava: SavedModel, plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the adapter changes nor the manifest, so the option is not in the history."""
    fake: Any = ModuleType("tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    options = OPTIONS.model_copy(update={name: NOT_DECIDING[name]})
    assert files(stage(options).run(llava, tmp_path / "out")) == plain


@pytest.mark.parametrize("name", DECIDING)
def test_a_run_is_not_resumed_with_another_deciding_option(name: str, llava: SavedModel, tmp_path: Path) -> None:
    artifact = Artifact.open(llava.folder)
    RunFolder(tmp_path / "run", stage(OPTIONS)._identity(artifact)).open()
    other = stage(OPTIONS.model_copy(update={name: DECIDING[name]}), resume=True)
    with pytest.raises(InputError, match=f"holds another run: its {name} was"):
        RunFolder(tmp_path / "run", other._identity(artifact), resume=True).open()


def test_a_run_is_resumed_where_its_data_moved(llava: SavedModel) -> None:
    """The options that say where the data is do not count; the data itself does, by its digest."""
    artifact, before = Artifact.open(llava.folder), stage(OPTIONS)._identity(Artifact.open(llava.folder))
    named = {name: "x" for name in RepairSettings.model_fields if name in SAYS_WHICH_DATA} | {"stream": True}
    assert stage(OPTIONS.model_copy(update=named))._identity(artifact) == before
    other = Repair(OPTIONS, samples=material.samples(11), validation=material.samples(3))
    assert other._identity(artifact)["data"] != before["data"]


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--hidden", "inf", "finite number"),
        ("--temperature", "inf", "finite number"),
        ("--lr", "inf", "finite number"),
        ("--checkpoint-minutes", "nan", "finite number"),
        ("--hold-out", "most", "give a share below 100 %, such as 5%"),
        ("--hold-out", "100%", "give a share below 100 %, such as 5%"),
    ],
)
def test_options_are_numbers_that_can_be_trained_with(
    flag: str, value: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["repair", flag, value]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"vlmc: {flag} {value}: ")
    assert reason in error
