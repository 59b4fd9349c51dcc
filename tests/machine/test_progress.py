"""The progress bar: what it shows on terminals of any width, read from what is drawn."""

import io
import re

import pytest
from rich.console import Console

from vlmc.toolchain.machine.progress import Progress

NOTES = ["loss 0.412", "kl 0.210", "185 samples/s", "teacher shared"]


def drawn(width: int, *notes: str) -> str:
    """Return the last line that is drawn, after the second of 600 steps."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    with Progress(console=console).task("repair", 600, done=119) as bar:
        bar.advance(notes)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    return [line for line in re.split(r"[\r\n]+", text) if line][-1].rstrip()


@pytest.mark.parametrize("width", [200, 100, 80, 60, 50, 30])
def test_count_and_time_left_are_there_at_any_width(width: int) -> None:
    line = drawn(width, *NOTES)
    assert len(line) <= width
    assert re.match(r"repair (.+ )?120/600 (0:00:00 )?eta [-0-9:]+", line)
    assert "\N{HORIZONTAL ELLIPSIS}" not in line


@pytest.mark.slow
def test_what_matters_least_gives_way_first() -> None:
    order = ["teacher shared", "185 samples/s", "kl 0.210", "0:00:00 eta", "loss 0.412", "\N{BOX DRAWINGS HEAVY HORIZONTAL}"]
    shown = [[part in drawn(width, *NOTES) for part in order] for width in range(120, 25, -1)]
    assert shown[0] == [True] * 6
    assert shown[-1] == [False] * 6
    for flags in shown:
        assert flags == sorted(flags)  # none is gone while one that matters less is there
    assert drawn(80, *NOTES).endswith("loss 0.412 kl 0.210 185 samples/s")
    assert drawn(60, *NOTES).endswith("loss 0.412")


def test_one_note_is_a_note_too() -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    with Progress(console=console).task("export", 3) as bar:
        bar.advance("compared with torch")
    assert "compared with torch" in console.file.getvalue()  # type: ignore[attr-defined]
