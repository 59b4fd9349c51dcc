"""Checkpoints: the latest state, never half written."""

from pathlib import Path

import pytest
import torch

from vlmc.runtime.errors import InputError
from vlmc.toolchain.repair.training import Checkpoints

STATE = {"x": torch.arange(3.0)}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    found = Checkpoints(tmp_path)
    assert found.load() is None
    found.save(STATE)
    return found


def test_the_state_is_the_one_that_was_saved_last(checkpoints: Checkpoints) -> None:
    checkpoints.save({"x": torch.zeros(2)})
    checkpoints.save(STATE)
    state = checkpoints.load()
    assert state is not None
    assert torch.equal(state["x"], STATE["x"])


@pytest.mark.parametrize("size", [0, 20, 60])
def test_a_damaged_state_is_named(size: int, checkpoints: Checkpoints) -> None:
    checkpoints.path.write_bytes(checkpoints.path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"state\.safetensors is damaged .* leave --resume out to start over"):
        checkpoints.load()


def test_a_failed_write_leaves_the_last_state(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        checkpoints.save({"x": torch.zeros(9)})
    monkeypatch.undo()
    state = checkpoints.load()
    assert state is not None
    assert torch.equal(state["x"], STATE["x"])
