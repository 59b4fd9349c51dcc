"""The demo's data set: `samples(split)` draws it, `write(directory, split)` puts it on disk in LLaVA's form."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import overload

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.fingerprint import Fingerprinted, digest_of, fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo.glyphs import SPLITS, Split
from vlmc.toolchain.demo.questions import CAPTION, KINDS, Asked, ask
from vlmc.toolchain.demo.scenes import Scene, draw_scene, picture

COUNTS: dict[Split, int] = {"train": 20_000, "validation": 1_000, "test": 2_000}
"""How many samples a split has when no count is asked."""


_DRAWN = 8  # samples that are drawn for a digest: what draws them is the same for all


class DemoSamples(Sequence[Sample], Fingerprinted):
    """Samples drawn when they are asked for; the same index gives the same sample, whatever the count."""

    def __init__(self, split: Split, length: int, kinds: tuple[str, ...]) -> None:
        self.split = split
        self.length = length
        self.kinds = kinds

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Sample]:
        return (self._draw(index) for index in range(self.length))

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self._draw(one) for one in range(self.length)[index]]
        return self._draw(range(self.length)[index])

    def digest(self) -> str:
        drawn = [self._draw(index) for index in range(min(_DRAWN, self.length))]
        return digest_of([self.split, str(self.length), *self.kinds, fingerprint(drawn)])

    def _draw(self, index: int) -> Sample:
        number, place = divmod(index, len(self.kinds))
        kind = self.kinds[place]
        scene, (question, answer) = draw_asked(self.split, kind, number)
        return Sample(f"{self.split}-{kind}-{number:05d}", (picture(scene),), question, answer, kind)


def samples(split: Split = "test", count: int | None = None, kinds: Sequence[str] | None = None) -> Sequence[Sample]:
    """Return questions about scenes, balanced by kind: index i has kind `kinds[i % len(kinds)]`.

    By default 2,000 for test and 1,000 for validation, of every kind but captions, and 20,000 for train, captions
    included. No handwriting occurs in two splits.

    Raises:
        InputError: there is no such split or kind, or the count is negative.
    """
    if split not in SPLITS:
        raise InputError(f"the demo has no split {split!r}: use one of {', '.join(SPLITS)}")
    chosen = tuple(kinds) if kinds is not None else KINDS + ((CAPTION,) if split == "train" else ())
    unknown = [kind for kind in chosen if kind not in (*KINDS, CAPTION)]
    if unknown or not chosen:
        raise InputError(f"the demo has no kind {', '.join(unknown) or '(none given)'}: use {', '.join((*KINDS, CAPTION))}")
    if count is not None and count < 0:
        raise InputError(f"a data set of {count} samples cannot be drawn: give a count of 0 or more")
    return DemoSamples(split, COUNTS[split] if count is None else count, chosen)


def draw_asked(split: Split, kind: str, number: int) -> tuple[Scene, Asked]:
    """Draw the `number`-th scene and question of one kind, again and again until the scene offers such a question."""
    random = Random(f"vlmc demo {split} {kind} {number}")
    while True:
        scene = draw_scene(random, split)
        asked = ask(kind, scene, random)
        if asked is not None:
            return scene, asked


def write(
    directory: Path,
    split: Split = "test",
    count: int | None = None,
    force: bool = False,
) -> Path:
    """Write PNG pictures and `<split>.jsonl`, one LLaVA conversation a line, and return the path of the latter.

    Everything is written beside `directory` and renamed in the end, so nothing half written remains.

    Raises:
        InputError: the directory exists and `force` is false or it holds something else, or as `samples` does.
    """
    drawn = samples(split, count)
    if directory.exists() and not force:
        raise InputError(f"{directory} exists: choose another folder, or add --force to replace it")
    if directory.exists() and not _is_ours(directory):
        raise InputError(f"{directory} holds more than demo data: choose another folder or move it away")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        _write_into(fresh, drawn, split)
        if directory.exists():
            directory.rename(Path(scratch) / "old")
        fresh.rename(directory)
    return directory / f"{split}.jsonl"


def _is_ours(directory: Path) -> bool:
    """Whether a folder holds nothing but what `write` puts there."""
    return directory.is_dir() and all(path.name == "images" or path.suffix == ".jsonl" for path in directory.iterdir())


def _write_into(folder: Path, drawn: Sequence[Sample], split: Split) -> None:
    (folder / "images").mkdir(parents=True)
    with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
        for number, sample in enumerate(drawn, start=1):
            name = f"images/{number:06d}.png"
            sample.load_image().save(folder / name)
            lines.write(json.dumps(_conversation(sample, name)) + "\n")


def _conversation(sample: Sample, image: str) -> dict[str, object]:
    turns = [
        {"from": "human", "value": f"<image>\n{sample.question}"},
        {"from": "gpt", "value": sample.answer},
    ]
    return {
        "id": sample.id,
        "image": image,
        "kind": sample.kind,
        "conversations": turns,
    }
