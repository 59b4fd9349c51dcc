"""The inside of a child: its streams, limits and watch, the command, and a report of how it went."""

import json
import os
import re
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.commands import MIB, Command, Limits
from tests.fuzz.watching import Watch
from vlmc.runtime.errors import VlmcError
from vlmc.runtime.serving import start

REPORT, STDOUT, STDERR = "report.json", "stdout", "stderr"
CACHE = ".cache"
"""vlmc's cache in the folder of a run, so that no run knows of another."""
LARGEST_FILE = 100 * MIB
TRACEBACK = 70
"""The exit code of a call of the API that raised what is none of vlmc's errors."""


def execute(command: Command, folder: str, notes: str, home: str, limits: Limits) -> None:
    """Run a command in this process, which is for nothing else: in `folder`, with what it says and its report in `notes`."""
    os.setsid()
    os.chdir(folder)
    os.environ.update({"VLMC_CACHE": str(Path(folder) / CACHE), **command.environment})
    _connect_streams(command, Path(notes))
    watch = Watch([Path(folder), Path(home), Path(notes)], command.death)
    if command.whole:
        os.execv(sys.executable, [sys.executable, "-m", "vlmc.toolchain.cli", *command.argv])
    started = memory("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + limits.ceiling,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    _set_fuse(command)
    if command.online:
        _allow_the_hub()
    watch.start()
    code = _answer(command)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - started
    report = {"code": code, "peak": max(0, peak), "noted": list(watch.noted), "changes": watch.changes}
    (Path(notes) / REPORT).write_text(json.dumps(report))
    os._exit(code & 0xFF)


def memory(field: str, process: int | str = "self") -> int:
    """Return a field of /proc/PID/status in bytes, 0 where there is no such process any more."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _connect_streams(command: Command, notes: Path) -> None:
    (notes / "stdin").write_bytes(command.stdin)
    os.dup2(os.open(notes / "stdin", os.O_RDONLY), 0)
    os.dup2(os.open(notes / STDERR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open(notes / STDOUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    if command.stdout == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    elif command.stdout == "closed":
        os.close(1)
    elif command.stdout == "broken":
        reads, writes = os.pipe()
        os.dup2(writes, 1)
        os.close(reads)
        os.close(writes)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # as a fresh interpreter has them
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)  # noqa: SIM115
    if command.stdout != "closed":
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _allow_the_hub() -> None:
    """Take back that there is no hub, for a trial to reach it to be seen: the watch lets no connection through."""
    import huggingface_hub.constants

    os.environ.pop("HF_HUB_OFFLINE", None)
    huggingface_hub.constants.HF_HUB_OFFLINE = False


def _set_fuse(command: Command) -> None:
    """Let the child kill itself after so many seconds, whatever it does then."""
    if command.death is not None and command.death.after is not None:
        fuse = threading.Timer(command.death.after, os.kill, (os.getpid(), command.death.by))
        fuse.daemon = True
        fuse.start()


def _answer(command: Command) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = _call(command) if command.call is not None else _run(command.argv)
        sys.stdout.flush()
        return code
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return TRACEBACK


def _run(argv: tuple[str, ...]) -> int:
    from vlmc.toolchain.cli.main import run

    if argv[:1] == ("serve",):
        _end_what_serves()
    return run(list(argv))


def _end_what_serves() -> None:
    """Send this process SIGTERM once the server has its own handler for it: what serves for ever would count as a hang."""

    def end(before: Any) -> None:
        while signal.getsignal(signal.SIGTERM) is before:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    def serve(*args: Any, tell: Callable[..., None], **options: Any) -> None:
        def told(*said: Any) -> None:
            tell(*said)
            threading.Thread(target=end, args=(signal.getsignal(signal.SIGTERM),), daemon=True).start()

        serves(*args, tell=told, **options)

    serves, start.serve = start.serve, serve


def _call(command: Command) -> int:
    assert command.call is not None
    try:
        print(command.call())
        return 0
    except VlmcError as error:
        print(f"vlmc: {error}", file=sys.stderr)
        return error.exit_code
