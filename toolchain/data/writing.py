"""Samples as files: PNG images beside JSON lines in LLaVA's conversation form, as `load` reads them."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.sample import Sample


def write(samples: Sequence[Sample], folder: Path, split: str, *, force: bool = False) -> Path:
    """Write samples of one image each as `images/` and `<split>.jsonl`, and return the path of the latter.

    Everything is written beside `folder` and renamed in the end, so nothing half written remains.

    Raises:
        InputError: the folder exists, and `force` is false or it holds something else.
    """
    if folder.exists() and not force:
        raise InputError(f"{folder} exists: choose another folder, or add --force to replace it")
    if folder.exists() and not _is_ours(folder):
        raise InputError(f"{folder} holds more than images and questions: choose another folder or move it away")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        _write_into(fresh, samples, split)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)
    return folder / f"{split}.jsonl"


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds nothing but what `write` puts there."""
    return folder.is_dir() and all(path.name == "images" or path.suffix == ".jsonl" for path in folder.iterdir())


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
