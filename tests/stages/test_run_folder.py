"""The folder of a run: which run may resume in it."""

from pathlib import Path

import pytest

from vlmc.runtime.errors import InputError
from vlmc.toolchain.stages.run_folder import RunFolder

IDENTITY = {"lr": 0.1, "source": {"model": "abc"}}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A file in the folder of a run."""
    RunFolder(tmp_path / "run", IDENTITY).open()
    path = tmp_path / "run" / "state"
    path.touch()
    return path


def test_the_same_run_resumes(state: Path) -> None:
    RunFolder(state.parent, IDENTITY, resume=True).open()
    assert state.is_file()


def test_without_resume_the_run_starts_over(state: Path) -> None:
    RunFolder(state.parent, IDENTITY).open()
    assert not state.exists()


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"rank": 4}, {"source": {"model": "abd"}}])
def test_another_run_is_refused_by_the_name_of_the_difference(change: dict[str, object], state: Path) -> None:
    with pytest.raises(InputError, match=f"another run: its {next(iter(change))}\\b.* was"):
        RunFolder(state.parent, IDENTITY | change, resume=True).open()
    assert state.is_file()
