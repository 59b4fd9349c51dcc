"""What is run, and what came of it: a command of vlmc, or a call of its API, as one child process."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

MIB = 1 << 20


@dataclass(frozen=True)
class Death:
    """When a child kills itself: before its `before`-th change of a file's name or place, or `after` so many seconds."""

    before: int | None = None
    after: float | None = None
    by: signal.Signals = signal.SIGKILL


@dataclass(frozen=True)
class Command:
    """One run: `argv` of vlmc, or `call`, a function that pickle can send to another process.

    `online` lets a connection be tried, for the trial to be noted; none ever leaves. `whole` starts a new interpreter for
    it, as a user's shell does: for what happens at an interpreter's start and end.
    """

    argv: tuple[str, ...] = ()
    call: Callable[[], object] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    stdout: Literal["file", "closed", "full", "broken"] = "file"
    online: bool = False
    whole: bool = False
    death: Death | None = None

    @property
    def verb(self) -> str:
        """The verb, or the name of the call."""
        return self.argv[0] if self.argv else getattr(getattr(self.call, "func", self.call), "__name__", "")

    def __str__(self) -> str:
        if self.argv:
            shown = " ".join(ascii(part) if not part.isascii() or not part.isprintable() else part for part in self.argv)
            return f"vlmc {shown if len(shown) < 300 else shown[:300] + '...'}"
        return f"tests.fuzz.calls.{self.verb}"


@dataclass(frozen=True)
class Limits:
    """What a run may take: seconds of work or of waiting, and bytes of memory above what it started with."""

    seconds: float = 10
    memory: int = 1024 * MIB
    ceiling: int = 2560 * MIB  # where the child is refused more: no case brings down the machine


@dataclass(frozen=True)
class Outcome:
    """What came of a run. `code` is negative where a signal ended it; texts are cut, `stderr_bytes` is not.

    `peak` is in bytes above the start; `noted` lists what the run must never do: connections that it tried, pickles that it
    opened, files that it changed outside its folder. `changes` counts changes of files' names and places.
    """

    code: int
    stdout: str
    stderr: str
    stderr_bytes: int
    seconds: float
    peak: int = 0
    hung: bool = False
    noted: tuple[str, ...] = ()
    changes: int = 0
