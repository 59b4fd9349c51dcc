"""What a built-in source offers. It is read before any command runs: nothing heavy is imported until it is called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmc.toolchain.data.sample import Sample


@dataclass(frozen=True)
class NamedModel:
    """A model that comes by a name.

    `title` says in a few words what it is; `data` is the built-in data set that it is used with where no other is named.
    `locate` returns its folder; it raises InputError where the files are damaged, and EnvironmentLacks with the command to
    run where they are not there yet. `fetch` downloads them and returns the folder: `vlmc fetch NAME`; None where the model
    is part of the package.
    """

    name: str
    title: str
    data: str
    locate: Callable[[], Path]
    fetch: Callable[[], Path] | None = None


@dataclass(frozen=True)
class NamedData:
    """A data set that comes by a name, with samples to train on, to validate on and to test on.

    `title` completes "Write ... as PNG images". `samples` returns a split's samples, the first `count` or its usual number,
    and raises InputError where there is no such split. `vlmc NAME-data` writes them as files.
    """

    name: str
    title: str
    samples: Callable[[str, int | None], "Sequence[Sample]"]

    def write(self, folder: Path, split: str, count: int | None = None, *, force: bool = False) -> Path:
        """Write a split as files, and return the path of its JSONL file.

        Raises:
            InputError: there is no such split, or the folder exists; `force` replaces one that was written so.
        """
        from vlmc.toolchain.data.writing import write

        return write(self.samples(split, count), folder, split, force=force)


@dataclass(frozen=True)
class BuiltIn:
    """All that one source offers."""

    models: tuple[NamedModel, ...] = ()
    data: tuple[NamedData, ...] = ()
