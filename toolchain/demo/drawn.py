"""Data sets that are drawn, not stored: `samples` draws one, `write` puts it on disk in LLaVA's form."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, overload

from PIL import Image

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo.glyphs import SPLITS, Split

Draw: TypeAlias = Callable[[Split, str, int], tuple[Image.Image, str, str]]
"""Draws the image, question and answer of a split's sample of one kind, by its number."""


@dataclass(frozen=True)
class DrawnSet:
    """A data set by its `name`: how a sample is drawn, of which kinds, and how many each split has when no count is asked.

    `asked` are the kinds that a split has when none are named; of the same index, all counts give the same sample.
    """

    name: str
    draw: Draw
    kinds: tuple[str, ...]
    asked: Mapping[Split, tuple[str, ...]]
    counts: Mapping[Split, int]

    def samples(
        self, split: Split = "test", count: int | None = None, kinds: Sequence[str] | None = None
    ) -> Sequence[Sample]:
        """Return questions about scenes, balanced by kind: index i has kind `kinds[i % len(kinds)]`.

        Raises:
            InputError: there is no such split or kind, or the count is negative.
        """
        if split not in SPLITS:
            raise InputError(f"{self.name} has no split {split!r}: use one of {', '.join(SPLITS)}")
        chosen = tuple(kinds) if kinds is not None else self.asked[split]
        unknown = [kind for kind in chosen if kind not in self.kinds]
        if unknown or not chosen:
            named = ", ".join(unknown) or "(none given)"
            raise InputError(f"{self.name} has no kind {named}: use {', '.join(self.kinds)}")
        if count is not None and count < 0:
            raise InputError(f"a data set of {count} samples cannot be drawn: give a count of 0 or more")
        return DrawnSamples(self.draw, split, self.counts[split] if count is None else count, chosen)

    def write(self, directory: Path, split: Split = "test", count: int | None = None, force: bool = False) -> Path:
        """Write PNG images and `<split>.jsonl`, one LLaVA conversation a line, and return the path of the latter.

        Everything is written beside `directory` and renamed in the end, so nothing half written remains.

        Raises:
            InputError: the directory exists and `force` is false or it holds something else, or as `samples` does.
        """
        drawn = self.samples(split, count)
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


class DrawnSamples(Sequence[Sample]):
    """Samples drawn when they are asked for; the same index gives the same sample, whatever the count."""

    def __init__(self, draw: Draw, split: Split, length: int, kinds: tuple[str, ...]) -> None:
        self.draw, self.split, self.length, self.kinds = draw, split, length, kinds

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

    def _draw(self, index: int) -> Sample:
        number, place = divmod(index, len(self.kinds))
        kind = self.kinds[place]
        image, question, answer = self.draw(self.split, kind, number)
        return Sample(f"{self.split}-{kind}-{number:05d}", image, question, answer, kind)


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
