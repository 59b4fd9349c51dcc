"""What a built-in source offers. Sources are loaded before any command runs, so they import nothing heavy at the top."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmc.toolchain.data.sample import Sample


@dataclass(frozen=True)
class NamedModel:
    """A model that is known by name.

    `title` describes it in a few words; `data` names the built-in data set to use with it unless the user names another.
    `locate` returns its folder; it raises InputError if files are damaged, and EnvironmentLacks with the command to run if
    they are not downloaded yet. `fetch` downloads them, as `vlmc fetch NAME`, and returns the folder; None for a model that
    is part of the package.
    """

    name: str
    title: str
    data: str
    locate: Callable[[], Path]
    fetch: Callable[[], Path] | None = None


@dataclass(frozen=True)
class NamedData:
    """A data set that is known by name, with the splits train, validation and test.

    `title` completes "Write ... as PNG images". `samples` returns the first `count` samples of a split, by default its usual
    number, and raises InputError if there is no such split. `vlmc NAME-data` writes them as files.
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
