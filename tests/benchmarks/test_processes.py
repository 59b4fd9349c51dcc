"""The watch over the memory of processes."""

import subprocess
import sys

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
