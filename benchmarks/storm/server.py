"""`vlmc serve` in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import final


@final
class ServerProcess:
    """A server that runs; `stderr` is where its log goes."""

    def __init__(self, artifact: Path, log: Path, threads: int, options: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "vlmc.toolchain.cli", "serve", str(artifact), "--json", "--quiet"]
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*command, "--port", "0", "--threads", str(threads), *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start: see {log}")
        said = json.loads(line)
        self.url, self.model = str(said["url"]), str(next(iter(said["models"])))
        self.host, _, port = self.url.removeprefix("http://").partition(":")
        self.port = int(port)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def memory(self) -> int:
        """Return the bytes that are resident, but for files that are mapped."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))

    def questions(self) -> int:
        """Return how many questions run or wait, as the server's own measures say."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as response:
            lines = response.read().decode().splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith("vlmc_questions{")))

    def idle(self, seconds: float = 60.0) -> bool:
        """Wait until no question runs or waits; return whether that came about."""
        end = time.monotonic() + seconds
        while self.questions():
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        time.sleep(2)
        return True

    def tell_to_end(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def end(self, seconds: float = 180.0) -> int:
        """Wait for the end, and return the exit code."""
        code = self._process.wait(seconds)
        self._close()
        return code

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
