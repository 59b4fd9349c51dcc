"""Children: each command runs in a process of its own, forked from a server that has torch and vlmc imported already."""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.fuzz.child import REPORT, STDERR, STDOUT, execute, memory
from tests.fuzz.commands import Command, Limits, Outcome

ROOT = Path(__file__).parent.parent.parent
_SHOWN = 4_000  # bytes of an output that are kept of its start, and of its end
_TICKS = os.sysconf("SC_CLK_TCK")
_WAITS = 3  # so many times the limit in all: this machine may be busy with other things


class Children:
    """Starts one child after the other; a context manager that holds the folder for their notes.

    `home` is the user's home and cache to all of them.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._notes = Path(tempfile.mkdtemp(prefix="vlmc-fuzz-"))
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["tests.fuzz.preload"])
        with _environment(home):
            forkserver.ensure_running()

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._notes, ignore_errors=True)

    def run(self, command: Command, folder: Path, limits: Limits | None = None) -> Outcome:
        """Run a command in `folder`, which it may write to, as to its home; may be called from several threads."""
        bounds = limits or Limits()
        notes = Path(tempfile.mkdtemp(dir=self._notes))
        process = self._context.Process(target=execute, args=(command, str(folder), str(notes), str(self.home), bounds))
        process.start()  # waits for the server's imports, the first time
        started = time.monotonic()
        peak, hung = self._wait(process, bounds)
        seconds = time.monotonic() - started
        try:
            return _outcome(notes, process.exitcode or 0, seconds, peak, hung)
        finally:
            shutil.rmtree(notes)

    def _wait(self, process: ForkServerProcess, limits: Limits) -> tuple[int, bool]:
        """Return the peak that was seen from outside, and whether the child had to be killed."""
        assert process.pid is not None
        started, peak, base = time.monotonic(), 0, 0
        while process.exitcode is None:
            process.join(0.2)
            now = memory("VmHWM", process.pid)
            base = base or memory("VmRSS", process.pid)
            peak = max(peak, now - base)
            waited, worked = time.monotonic() - started, _worked(process.pid)
            idle = waited > limits.seconds and worked < waited / 10
            if worked > limits.seconds or idle or waited > _WAITS * limits.seconds:
                _kill_group(process.pid)
                process.join()
                return peak, True
        _kill_group(process.pid)  # what it may have started
        return peak, False


def _outcome(notes: Path, code: int, seconds: float, peak: int, hung: bool) -> Outcome:
    report = {"code": code, "peak": peak, "noted": [], "changes": 0}
    with contextlib.suppress(OSError, ValueError):
        report |= json.loads((notes / REPORT).read_text())
    stderr, size = _read(notes / STDERR)
    stdout, _ = _read(notes / STDOUT)
    noted, changes = tuple(report["noted"]), report["changes"]
    return Outcome(report["code"], stdout, stderr, size, seconds, report["peak"], hung, noted, changes)


@contextlib.contextmanager
def _environment(home: Path) -> Iterator[None]:
    """Set what vlmc and the libraries beneath it are told before they are imported; what was set before comes back."""
    before = dict(os.environ)
    os.environ.update(
        {
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "VLMC_CACHE": str(home / "vlmc"),
            "HF_HOME": str(home / "hub"),
            "MPLCONFIGDIR": str(home / "matplotlib"),
            "PYTHONPATH": os.pathsep.join(_paths()),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _paths() -> Iterator[str]:
    yield str(ROOT)
    yield from (path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(ROOT))


def _worked(process: int) -> float:
    """Return the seconds of CPU time of a process."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _kill_group(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def _read(path: Path) -> tuple[str, int]:
    """Return a file as text, of a long one the start and the end, and its size in bytes."""
    try:
        with path.open("rb") as stream:
            content, size = stream.read(_SHOWN), path.stat().st_size
            if size > len(content):
                stream.seek(max(len(content), size - _SHOWN))
                content += stream.read()
    except OSError:
        return "", 0
    return content.decode("utf-8", "backslashreplace"), size
