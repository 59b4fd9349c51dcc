"""Recipes are texts by names: nothing in them may grow, or run."""

from pathlib import Path

import pytest

from vlmc.runtime.errors import InputError
from vlmc.toolchain.cli.recipes import read_recipe

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_texts_and_mappings_of_texts_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("target: 2:4\nlayers: {'*.fc1': none}\nwarm-up: 3\n")
    assert read_recipe(tmp_path / "a.yaml") == {"target": "2:4", "layers": {"*.fc1": "none"}, "warm_up": "3"}
    assert read_recipe(None) == {}


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


def test_a_device_is_read_no_further_than_a_recipe_goes() -> None:
    with pytest.raises(InputError, match="more than 1,000,000 bytes"):
        read_recipe(Path("/dev/zero"))
