"""Data sets: where questions, images and answers come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.conversations import read_conversations
from vlmc.toolchain.data.sample import Sample

__all__ = ["Sample", "load"]

Split = Literal["train", "validation", "test"]


def load(source: str, split: Split, count: int | None = None) -> Sequence[Sample]:
    """Return a data set: `demo` (its split), or a JSON / JSONL file of LLaVA conversations (which has no splits).

    Raises:
        InputError: there is no such data set, it is broken, or holds fewer than `count` samples.
    """
    if source == "demo":
        from vlmc.toolchain.demo.dataset import samples

        return samples(split, count)
    path = Path(source)
    if path.suffix not in {".json", ".jsonl"} or not path.is_file():
        raise InputError(f"no data set at {source}: give demo, or a JSON / JSONL file of LLaVA conversations")
    found = read_conversations(path)
    if count is not None and len(found) < count:
        raise InputError(f"{source} holds {len(found)} samples, {count} were asked for")
    return found[:count]
