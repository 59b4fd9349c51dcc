"""Standard output and error: closed, full, or with nobody who reads them."""

import io
import os
import sys
from contextlib import suppress

BROKEN_PIPE = 141
"""The exit code of a tool that SIGPIPE ends (128 + 13)."""


class BrokenOutput(Exception):
    """Nobody reads standard output any more; no OSError, which click would turn into exit code 1."""


def prepare_streams() -> None:
    """Make the streams safe: a closed one takes no file's place, and no character is impossible to print."""
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:  # the lowest free number: one of the three was closed, and files would get its number
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    if sys.stderr is None:  # print would write to standard output instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def leave_streams() -> None:
    """Flush what is left; where that fails, Python must not try again when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_broken_pipe(error: BaseException | None) -> bool:
    """Whether nobody reads the output any more; click raises SystemExit from it while it prints a help text."""
    return isinstance(error, BrokenOutput) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
    )
