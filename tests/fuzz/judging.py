"""Judging an outcome: a clean error, accepted without effect, or a defect, and of which kind."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.fuzz.child import TRACEBACK
from tests.fuzz.commands import Limits, Outcome

LONGEST_LINE = 2_000
_FINE = "\n\t"  # control characters that texts are laid out with
_CODES = {1, 2, 3}
_PROGRESS = re.compile(r" \d+/\d+ +\d+:\d\d:\d\d")
"""What a bar of progress leaves behind: how much was done, and how long it took."""


class Kind(StrEnum):
    """The kinds of what may come of a case; the first two are what should."""

    CLEAN = "clean error"
    ACCEPTED = "accepted without effect"
    INTERNAL = "internal error"
    RAISED = "traceback"
    CRASHED = "crash"
    HUNG = "hang"
    MEMORY = "memory"
    CHANGED = "changed bytes accepted"
    OUTSIDE = "files touched outside"
    EXECUTED = "code, pickle or network"
    MESSAGE = "no clean line"
    LOST = "lost or half written"
    WRONG = "wrong answer"


@dataclass(frozen=True)
class Verdict:
    """What came of a case; `place` says where, for defects to be counted once."""

    kind: Kind
    place: str = ""

    @property
    def is_defect(self) -> bool:
        return self.kind not in (Kind.CLEAN, Kind.ACCEPTED)


def judge(outcome: Outcome, limits: Limits, touched: Sequence[str] = (), verb: str = "") -> Verdict:
    """Judge what any run must hold, whatever it was given; `touched` are files that it may not change and did."""
    if outcome.hung:
        return Verdict(Kind.HUNG, verb)
    if noted := [note for note in outcome.noted if "outside" not in note]:
        return Verdict(Kind.EXECUTED, noted[0])
    if touched or outcome.noted:
        return Verdict(Kind.OUTSIDE, (*touched, *outcome.noted)[0])
    if outcome.code < 0:
        return Verdict(Kind.CRASHED, f"{verb}, signal {-outcome.code}")
    if outcome.peak > limits.memory or "out of memory" in outcome.stderr:
        return Verdict(Kind.MEMORY, verb)
    if outcome.code == TRACEBACK or "Traceback (most recent call last)" in outcome.stderr:
        return Verdict(Kind.RAISED, frame(outcome.stderr))
    if "internal error" in outcome.stderr:
        return Verdict(Kind.INTERNAL, _first_words(outcome.stderr))
    return _judge_text(outcome)


def _judge_text(outcome: Outcome) -> Verdict:
    shown = [char for char in outcome.stderr + outcome.stdout if _is_control(char)]
    if shown:
        return Verdict(Kind.MESSAGE, f"control characters: {_opening(outcome.stderr or outcome.stdout)}")
    if outcome.code == 0:
        return Verdict(Kind.ACCEPTED)
    if outcome.code not in _CODES:
        return Verdict(Kind.MESSAGE, f"exit code {outcome.code}: {_first_words(outcome.stderr)}")
    lines = [line for line in outcome.stderr.removesuffix("\n").split("\n") if not _PROGRESS.search(line)]
    if len(lines) != 1 or not lines[0].startswith("vlmc: "):
        return Verdict(Kind.MESSAGE, f"no single line: {_opening(outcome.stderr)}")
    if outcome.stderr_bytes > LONGEST_LINE:
        return Verdict(Kind.MESSAGE, f"a very long line: {_first_words(outcome.stderr)}")
    return Verdict(Kind.CLEAN)


def frame(text: str) -> str:
    """Return the exception's type and the last frame of vlmc's own in a traceback."""
    frames = re.findall(r'File "[^"]*/((?:runtime|toolchain|exporters)/[^"]+)", line \d+, in (\S+)', text)
    raised = re.findall(r"^(?!vlmc:)([A-Za-z_][\w.]*)(?::|$)", text, re.MULTILINE)
    name = raised[-1].rpartition(".")[2] if raised else "unknown"
    return f"{name} in {':'.join(frames[-1])}" if frames else f"{name}: {_first_words(text[-200:])}"


def _is_control(char: str) -> bool:
    return char not in _FINE and unicodedata.category(char) in {"Cc", "Cs"}


def _opening(text: str) -> str:
    """Return the first three words of a message: what follows is the user's own."""
    return " ".join("".join(char for char in _first_words(text) if char.isprintable()).split()[:3])


def _first_words(text: str) -> str:
    """Return the start of a message without what differs from case to case."""
    line = next((line for line in text.splitlines() if line.strip()), "").removeprefix("vlmc: ")
    return re.sub(r"\d+", "N", line)[:60].encode("unicode_escape").decode()
