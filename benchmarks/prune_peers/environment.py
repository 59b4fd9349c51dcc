"""llm-compressor's own virtual environment: its pins differ from vlmc's, so it is never a dependency."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

RELEASE = "0.14.0.1"
PINS = (f"llmcompressor=={RELEASE}", "compressed-tensors==0.19.0", "transformers==5.17.0")
"""Beside these, torch is the very release that vlmc runs with."""


class Missing(Exception):
    """The environment is not there; the message says why."""


def default_folder() -> Path:
    """Return where the environment is kept between runs."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "vlmc" / f"llm-compressor-{RELEASE}"


def interpreter(folder: Path, *, make: bool) -> Path:
    """Return the environment's Python; make the environment first where that is wanted and needed.

    Raises:
        Missing: it is not there and shall not be made, or cannot be.
    """
    pins = [f"torch=={version('torch').partition('+')[0]}", *PINS]
    record, python = folder / "pins.txt", folder / "bin" / "python"
    if record.is_file() and record.read_text(encoding="utf-8").split() == pins:
        return python
    if not make:
        raise Missing("not installed: run without --quick once")
    print(f"installing {', '.join(pins)} into {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", *pins])
    record.write_text("\n".join(pins), encoding="utf-8")
    return python


def _run(line: list[str]) -> None:
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise Missing(f"could not be installed: {said[-1]}")
