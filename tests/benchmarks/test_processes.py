"""The watch over the memory of processes."""

import signal
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from processes import watch


def test_the_greatest_of_several_processes_is_seen() -> None:
    code = "import sys, time; block = b'x' * int(sys.argv[1]); time.sleep(1)"
    processes = [subprocess.Popen([sys.executable, "-S", "-c", code, str(size)]) for size in (1000, 100_000_000)]
    assert 90e6 < watch(*processes) < 200e6
    assert [process.returncode for process in processes] == [0, 0]


def test_one_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="status 3"):
        watch(subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"]))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_command_ends_with_a_benchmark_that_is_killed() -> None:
    code = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does to what runs in the background
from processes import ends_with_its_parent
sleeping = [sys.executable, "-S", "-c", "import time; print('ready', flush=True); time.sleep(20); print('slept')"]
child = subprocess.Popen(sleeping, preexec_fn=ends_with_its_parent)
print(child.pid, flush=True)
child.wait()
"""
    where = str(Path(processes.__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": where}
    ) as parent:
        assert parent.stdout is not None
        told = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert "ready" in told
        assert parent.stdout.read() == "", "the child has slept to its end"
