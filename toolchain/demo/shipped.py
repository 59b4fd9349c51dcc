"""The trained models that ship with vlmc: where they are, and whether they are complete."""

import hashlib
from pathlib import Path

from vlmc.runtime.errors import InputError

SUMS = "SHA256SUMS"
_MODELS = Path(__file__).parent / "models"


def locate(name: str) -> Path:
    """Return the folder of a shipped model, with the SHA-256 of every file checked.

    Raises:
        InputError: its files are not the ones that were shipped.
    """
    verify(_MODELS / name)
    return _MODELS / name


def verify(folder: Path, mend: str = "reinstall vlmc") -> None:
    """Check a model folder against its `SHA256SUMS`; `mend` says what to do about damage.

    Raises:
        InputError: a file is missing, differs, or is not listed.
    """
    if not (folder / SUMS).is_file():
        raise InputError(f"{folder / SUMS} is missing: {mend}")
    expected = _read_sums(folder / SUMS)
    present = {path.name for path in folder.iterdir() if path.name != SUMS}
    for name in sorted(expected.keys() | present):
        if name not in present:
            raise InputError(f"{folder / name} is missing: {mend}")
        if expected.get(name) != _digest(folder / name):
            raise InputError(f"{folder / name} is not the file that was shipped: {mend}")


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` for every file of a model folder, in the form that `sha256sum --check` reads."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{_digest(path)}  {path.name}\n" for path in files), encoding="utf-8")


def _read_sums(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
