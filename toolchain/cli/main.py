"""The `vlmc` command: runs the app and turns every failure into one line and an exit code."""

import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress

import typer

from vlmc.runtime.errors import VlmcError, one_line, shortened
from vlmc.toolchain.cli.app import app
from vlmc.toolchain.cli.streams import BROKEN_PIPE, is_broken_pipe, leave_streams, prepare_streams
from vlmc.toolchain.machine.packages import PACKAGES, remedy

INTERRUPTED = 130
LONGEST = 2000  # characters of a message
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml", "prometheus_client": "prometheus-client"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRONG_NAME = {errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENXIO, errno.EILSEQ}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 a check does not hold, 2 wrong usage or input, 3 the environment lacks something.

    130: interrupted; 141: whoever read the result went away.
    """
    prepare_streams()
    code = run(list(sys.argv[1:] if argv is None else argv))
    leave_streams()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; return the exit code. An error is one line on stderr, with a traceback only under --debug."""
    debug = "--debug" in arguments
    _quieten(debug)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(args=arguments or ["--help"], standalone_mode=False)
        if code == INTERRUPTED:  # Typer turns the exception into this
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if is_broken_pipe(error):  # no message, as other tools that a signal ends
            return BROKEN_PIPE
        if isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        message, code = explain(error)
        with suppress(OSError):
            print(f"vlmc: {shortened(message, LONGEST)}", file=sys.stderr)
        return code


def explain(error: BaseException) -> tuple[str, int]:
    """Return the one line and the exit code of a failure."""
    if isinstance(error, VlmcError):
        return str(error), error.exit_code
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return (
            "interrupted: nothing is half written; the same command resumes (prune and repair: with --resume)",
            INTERRUPTED,
        )
    if isinstance(error, typer.TyperException):
        return f"{one_line(error.format_message())} (see vlmc --help)", 2
    if _is_out_of_space(error):
        return "no space left on the disk: free some and run the same command again; nothing is half written", 3
    if isinstance(error, OSError) and error.errno in _DENIED:
        return f"{error.filename} cannot be written or read ({error.strerror}): choose another folder", 2
    if isinstance(error, OSError) and error.errno in _WRONG_NAME:
        return f"{shortened(str(error.filename), 100)} cannot be used as a name ({error.strerror}): choose another", 2
    if isinstance(error, UnicodeError):
        return f"a name or a text is not valid UTF-8 ({one_line(error, 100)}): rename it, or write it in UTF-8", 2
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read (--debug shows which)", 2
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = _DISTRIBUTIONS.get(error.name, error.name)
        if package in PACKAGES:
            return f"{package} is not installed: {remedy(package)}", 3
    if isinstance(error, MemoryError):
        return "out of memory: use a machine with more, or a smaller model", 3
    return f"internal error, {type(error).__name__}: {one_line(error)} (--debug shows where)", 1


def _is_out_of_space(error: BaseException | None) -> bool:
    """Whether the error or one of its causes means that the disk is full; safetensors says so only in its text."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return "os error 28" in str(error) or "No space left" in str(error) or _is_out_of_space(error.__context__)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _quieten(debug: bool) -> None:
    """Keep libraries' notices off the terminal; vlmc's own messages report their errors."""
    if not debug:
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
