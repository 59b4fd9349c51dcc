"""A `vlmc` command in a process of its own: how long it takes and what it has resident at most, with or without a limit."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")  # versions 1 and 2
LIMITS = {"memory.limit_in_bytes", "memory.max"}
_PDEATHSIG = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


@dataclass(frozen=True)
class Spent:
    """What one run took: seconds, greatest resident memory in bytes, and its limit, None where there was none."""

    seconds: float
    peak: int
    limit: int | None


def spend(arguments: Sequence[str], threads: int | None, limit: int | None = None) -> Spent:
    """Run `vlmc` with these arguments, in a process whose memory is limited to so many bytes."""
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    command = [sys.executable, "-m", "vlmc.toolchain.cli", *arguments, "--quiet"]
    with limited(limit) as group:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, preexec_fn=ends_with_its_parent)
        if group is not None:
            (group / "cgroup.procs").write_text(str(process.pid))
        peak = watch(process)
    return Spent(time.perf_counter() - start, peak, None if group is None else limit)


def ends_with_its_parent() -> None:
    """Have this process stopped, as by Ctrl-C, when its parent is gone, killed or not; only Linux can.

    A shell lets what it starts in the background ignore Ctrl-C, and this process would have it from there.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGINT)


def watch(*processes: "subprocess.Popen[bytes]") -> int:
    """Wait for processes; return the bytes that one of them had resident at most, by the system's own high-water mark.

    Raises:
        SystemExit: one of them failed.
    """
    peak = 0
    while any(process.poll() is None for process in processes):
        for process in processes:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except OSError:
                continue
            peak = max([peak, *(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.05)
    if failed := [process.returncode for process in processes if process.returncode]:
        raise SystemExit(f"vlmc ended with status {failed[0]}")
    return peak


@contextmanager
def limited(limit: int | None) -> Iterator[Path | None]:
    """Yield a control group with that many bytes of memory, None where none is asked for or can be made."""
    for parent in CGROUPS if limit is not None else ():
        group = parent / f"vlmc-benchmark-{os.getpid()}"
        try:
            group.mkdir()
            next(group / name for name in LIMITS if (group / name).is_file()).write_text(str(limit))
        except (OSError, StopIteration):
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    yield None
