"""Samples as files: PNG images beside JSON lines in LLaVA's conversation form, as `load` reads them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from vlmc.runtime.artifact.locking import exclusive
from vlmc.runtime.artifact.owned import OwnFolder, beside
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.sample import Sample

_IMAGE = re.compile(r"\d{6,}\.png")


def write(samples: Sequence[Sample], folder: Path, split: str, *, force: bool = False) -> Path:
    """Write samples of one image each as `images/` and `<split>.jsonl`, and return the path of the latter.

    Everything is written beside `folder` and renamed in the end, so nothing half written remains.

    Raises:
        InputError: the folder exists, and `force` is false or it holds something else; or another process is writing it.
    """
    scratch = OwnFolder(beside(folder, f".{folder.name}.partial"))
    _check(folder, force=force)
    with exclusive(folder):
        scratch.check()
        old = scratch.path / "old"
        if old.is_dir() and not folder.exists():  # killed between the two renames
            old.rename(folder)
        _check(folder, force=force)
        try:
            fresh = scratch.make() / "fresh"
            _write_into(fresh, samples, split)
            _exchange(fresh, folder, old)
        finally:
            scratch.remove()
    return folder / f"{split}.jsonl"


def _check(folder: Path, *, force: bool) -> None:
    if folder.is_symlink():
        raise InputError(f"{folder} is a symbolic link: name the folder that it leads to, or another one")
    if folder.exists() and not force:
        raise InputError(f"{folder} exists: choose another folder, or add --force to replace it")
    if folder.exists() and not _is_ours(folder):
        raise InputError(f"{folder} holds more than images and questions: choose another folder or move it away")


def _exchange(fresh: Path, folder: Path, old: Path) -> None:
    """Rename `fresh` to `folder`; what is there is moved to `old`, and back if that fails."""
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds nothing but what `write` puts there."""
    if not folder.is_dir():
        return False
    inside = [path for path in folder.iterdir() if path.suffix != ".jsonl"]
    images = folder / "images"
    numbered = all(_IMAGE.fullmatch(path.name) for path in (images.iterdir() if images.is_dir() else ()))
    return inside in ([], [images]) and not images.is_symlink() and numbered


def _write_into(folder: Path, samples: Sequence[Sample], split: str) -> None:
    (folder / "images").mkdir(parents=True)
    with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
        for number, sample in enumerate(samples, start=1):
            name = f"images/{number:06d}.png"
            sample.load_image().save(folder / name)
            lines.write(json.dumps(_conversation(sample, name)) + "\n")


def _conversation(sample: Sample, image: str) -> dict[str, object]:
    turns = [
        {"from": "human", "value": f"<image>\n{sample.question}"},
        {"from": "gpt", "value": sample.answer},
    ]
    return {"id": sample.id, "image": image, "kind": sample.kind, "conversations": turns}
