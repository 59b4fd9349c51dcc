"""Recipes are texts by names: nothing in them may grow, or run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlmc.runtime.errors import InputError
from vlmc.toolchain.cli.recipes import read_recipe
from vlmc.toolchain.settings import CompressSettings, PruneSettings, RepairSettings

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_texts_and_mappings_of_texts_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("target: 2:4\nlayers: {'*.fc1': none}\nwarm-up: 3\n")
    assert read_recipe(tmp_path / "a.yaml") == {"target": "2:4", "layers": {"*.fc1": "none"}, "warm_up": "3"}
    assert read_recipe(None) == {}


def test_the_papers_setting_is_told_to_each_command_in_its_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = Path("ressa-paper")
    chain, prune, repair = (read_recipe(name, group) for group in (CompressSettings, PruneSettings, RepairSettings))
    assert prune == {"method": "wanda", "calibration": "128"}
    assert repair == {**repair, "method": "ressa", "rank": "8", "lr": "0.0001", "steps": "782"}
    assert chain == {**repair, **prune, "repair": "ressa"}
    for group, found in ((CompressSettings, chain), (PruneSettings, prune), (RepairSettings, repair)):
        group(**found)
    name.write_text("target: 4:8\n")
    assert read_recipe(name, PruneSettings) == {"target": "4:8"}, "a file of that name wins"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (BOMB, r"it has an alias"),
        ("target: [" * 5000, "recursion"),
        ("target: " + "x" * 1_000_001, "more than 1,000,000 bytes"),
        ("target: !!python/object/apply:os.system [ls]\nb: [", "cannot be read"),
        ("- target", "must be a YAML mapping"),
    ],
)
def test_bombs_are_refused_in_a_short_line(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(InputError, match=told) as caught:
        read_recipe(tmp_path / "a.yaml")
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path / "gone"):
        with pytest.raises(InputError, match=r"the recipe .* cannot be read: it is not a file"):
            read_recipe(path)


@pytest.mark.integration
def test_what_a_shell_makes_of_a_command_is_read() -> None:
    code = "import sys; from pathlib import Path; from vlmc.toolchain.cli.recipes import read_recipe as read"
    line = f"{sys.executable} -c '{code}; print(read(Path(sys.argv[1])))' <(echo target: 2:4)"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "{'target': '2:4'}\n"
