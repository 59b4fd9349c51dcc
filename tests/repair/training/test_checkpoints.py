"""Checkpoints: what may be gone on from, and that nothing half written is ever there."""

from pathlib import Path

import pytest
import torch

from vlmc.runtime.errors import InputError
from vlmc.toolchain.repair.training import Checkpoints

STATE = {"x": torch.arange(3.0)}
IDENTITY = {"lr": 0.1, "source": {"model": "abc"}}


def saved(folder: Path) -> Path:
    checkpoints = Checkpoints(folder / "run", IDENTITY)
    assert checkpoints.open() is None
    checkpoints.save(STATE)
    return folder / "run"


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    state = Checkpoints(saved(tmp_path), IDENTITY, resume=True).open()
    assert state is not None
    assert torch.equal(state["x"], STATE["x"])


def test_without_resume_the_run_starts_anew(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    assert Checkpoints(folder, IDENTITY).open() is None
    assert Checkpoints(folder, IDENTITY, resume=True).open() is None


def test_a_run_that_saved_nothing_starts_anew(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "run", IDENTITY, resume=True).open() is None


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"rank": 4}, {"source": {"model": "abd"}}])
def test_another_run_is_refused_by_the_name_of_the_difference(change: dict[str, object], tmp_path: Path) -> None:
    folder = saved(tmp_path)
    with pytest.raises(InputError, match=f"another run: its {next(iter(change))}\\b.* was"):
        Checkpoints(folder, IDENTITY | change, resume=True).open()
    assert (folder / "state.safetensors").is_file()


@pytest.mark.parametrize("size", [0, 20, 60])
def test_a_damaged_state_is_named(size: int, tmp_path: Path) -> None:
    state = saved(tmp_path) / "state.safetensors"
    state.write_bytes(state.read_bytes()[:size])
    with pytest.raises(InputError, match=r"state\.safetensors is damaged"):
        Checkpoints(state.parent, IDENTITY, resume=True).open()


def test_a_failed_write_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        Checkpoints(folder, IDENTITY, resume=True).save({"x": torch.zeros(9)})
    monkeypatch.undo()
    state = Checkpoints(folder, IDENTITY, resume=True).open()
    assert state is not None
    assert torch.equal(state["x"], STATE["x"])
