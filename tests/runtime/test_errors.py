"""Whatever a message quotes, it is a line of bounded length that a terminal only shows."""

import pytest

from vlmc.runtime.errors import InputError


@pytest.mark.parametrize("quoted", ["x" * 100_000, "象" * 100_000, "\ud800" * 10_000, "\x1b[2J\n" * 10_000])
def test_a_message_that_quotes_much_is_cut_in_its_middle(quoted: str) -> None:
    told = str(InputError(f"{quoted} is wrong: {quoted}: mend it"))
    assert len(told.encode()) <= 1_510
    assert told.isprintable()
    assert told.startswith(quoted[:1] if quoted[0].isprintable() else "\\")
    assert told.endswith(": mend it")
    assert " ... " in told


def test_a_message_is_whole_up_to_its_bound() -> None:
    assert str(InputError("a" * 1_500)) == "a" * 1_500
    assert str(InputError("a" * 1_501)) == "a" * 750 + " ... " + "a" * 750
