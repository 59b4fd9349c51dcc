"""A few kills of the verbs that are quick: at fixed moments, most of them where the result is put in its place."""

from pathlib import Path

import pytest

from tests.fuzz.kills.killing import try_kill, unbroken
from tests.fuzz.kills.verbs import VERBS
from tests.fuzz.material import Material

pytestmark = pytest.mark.fuzz
SLOW = {"export", "compress", "repair"}
KILLS = 4


@pytest.mark.parametrize("verb", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in VERBS])
def test_a_killed_verb_ends_in_the_same_bytes(verb: str, material: Material, box: Path) -> None:
    whole = unbroken(verb, material, box)
    found = [try_kill(verb, number, whole, material, box) for number in range(KILLS)]
    assert not [f"{one.verdict}, {one.what}, {one.case}" for one in found if one.verdict.is_defect]
