"""The options of repair: which of them decide the result, and what they may be."""

import pytest

from tests.repair import material
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.settings import RepairSettings
from vlmc.toolchain.stages.repair import Repair


@pytest.mark.parametrize(
    "name", ["tensorboard", "checkpoint_minutes", "checkpoint_every", "gradient_checkpointing", "sample_cache", "workers"]
)
def test_what_does_not_change_the_result_is_no_part_of_the_history(name: str) -> None:
    assert name not in Repair(material.OPTIONS).settings()
    assert name in RepairSettings.model_fields


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
