"""FSDP2: frozen weights in shards, with the losses of one process, and what cannot be had with them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.repair import material
from tests.repair.feeding.test_prefetch import OneOf
from tests.repair.training.test_processes import losses, two
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.toolchain import builtin
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.loading import shards
from vlmc.toolchain.settings import RepairSettings
from vlmc.toolchain.stages.repair import Repair

ADAPTER = "adapter/adapter_model.safetensors"
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
OPTIONS = ["--steps", "5", "--batch", "6", "--rank", "2", "--accumulate", "2", "--quiet", "--lr", "0.01"]


@pytest.fixture
def fsdp2(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch --use_fsdp --fsdp_version 2` tells its processes."""
    for name, value in FSDP2.items():
        monkeypatch.setenv(name, value)


def command(folder: Path, *more: str) -> list[str]:
    """Return a repair that is validated on 13 samples: one process of two has a batch less than the other."""
    builtin.data_sets()["demo"].write(folder / "data", "train", 13)
    data = str(next((folder / "data").glob("*.jsonl")))
    return ["repair", str(folder / "pruned"), "--data", data, "--validation", data, "--validate-every", "2", *OPTIONS, *more]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llava", ["--teacher", "shared"]),
        ("blip-2-t5", ["--teacher", "copy", "--hidden", "0.5", "--gradient-checkpointing", "--method", "lora"]),
    ],
)
def test_two_processes_hold_half_the_weights_each_with_the_losses_of_one(
    family: str, more: list[str], fsdp2: None, tmp_path: Path
) -> None:
    source = material.pruned(material.dense(family, tmp_path / "dense"), tmp_path / "pruned", "wanda")
    arguments = command(tmp_path, *more)
    assert run([*arguments, "--out", str(tmp_path / "one")]) == 0
    two([*arguments, "--out", str(tmp_path / "both")], tmp_path)
    for mine, theirs in zip(losses(tmp_path / "one"), losses(tmp_path / "both"), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-3)
    alone, shared = (Artifact.open(tmp_path / name).manifest.history[-1].measures for name in ("one", "both"))
    assert shared["best_validation"] == pytest.approx(alone["best_validation"], rel=1e-3)
    assert shared["teacher"] == more[1]
    whole = sum(parameter.nbytes for parameter in source.load().parameters())
    assert shared["shards"] == 2
    assert 0.5 * whole <= shared["weight_bytes_each"] < 0.53 * whole
    assert "shards" not in alone
    ours, theirs = (load_file(tmp_path / name / ADAPTER) for name in ("one", "both"))
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_a_run_that_one_process_began_goes_on_in_two_with_shards(fsdp2: None, tmp_path: Path) -> None:
    material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned", "wanda")
    arguments = command(tmp_path, "--checkpoint-every", "1", "--pruned-questions", "0")
    assert run([*arguments, "--out", str(tmp_path / "one")]) == 0
    data = arguments[arguments.index("--data") + 1]  # the history has its name alone
    given = {"checkpoint_every": 1, "data": data, "validation": data}
    options = RepairSettings.model_validate(config(tmp_path / "one") | given)
    with pytest.raises(material.Killed):
        Repair(options, progress=material.KilledAt(4)).run(SavedModel.find(str(tmp_path / "pruned")), tmp_path / "both")
    two([*arguments, "--resume", "--out", str(tmp_path / "both")], tmp_path)
    one, both = losses(tmp_path / "one"), losses(tmp_path / "both")
    assert both[:3] == one[:3]  # they were not trained again
    for mine, theirs in zip(one, both, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-3)


def config(artifact: Path) -> dict[str, Any]:
    """Return the options that an artifact was repaired with."""
    found = dict(Artifact.open(artifact).manifest.history[-1].config)
    return {name: value for name, value in found.items() if name != "seed"}


def repair(llava: SavedModel, out: Path, **options: object) -> None:
    """Start a repair as the first of two processes that never speak."""
    stage = Repair(material.OPTIONS.model_copy(update=options), samples=material.samples())
    stage.group = OneOf(2)  # type: ignore[assignment]
    stage.run(llava, out)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "masked-full"},
            "--method masked-full trains as many values as there are weights, .* leave --use_fsdp out",
        ),
        ({"teacher": "cached"}, "--teacher cached runs the dense model in each process by itself, .* choose shared or copy"),
    ],
)
def test_what_shards_cannot_do_is_one_line(options: dict[str, str], message: str, fsdp2: None, tmp_path: Path) -> None:
    llava = material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned")
    with pytest.raises(InputError, match=message):
        repair(llava, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_shards_are_asked_of_accelerate(fsdp2: None, monkeypatch: pytest.MonkeyPatch) -> None:
    group = OneOf(2)
    assert shards(group)  # type: ignore[arg-type]
    assert not shards(OneOf())  # type: ignore[arg-type]  # alone there is nothing to share
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(InputError, match="leave --fsdp_offload_params out"):
        shards(group)  # type: ignore[arg-type]
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(InputError, match="add --fsdp_version 2"):
        shards(group)  # type: ignore[arg-type]
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    assert not shards(group)  # type: ignore[arg-type]
