"""From the name of a source to its rows: a file, a folder, a pattern of files, or a data set of the hub."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import glob
from itertools import product
from pathlib import Path

from vlmc.runtime.errors import InputError
from vlmc.toolchain import builtin
from vlmc.toolchain.data.forms.rows import ManyRows, Rows
from vlmc.toolchain.data.forms.text import open_text
from vlmc.toolchain.data.regular import is_regular
from vlmc.toolchain.data.sources import Source

FORMS = (".json", ".jsonl", ".csv", ".parquet", ".tar", ".txt")
LAYOUTS = (("metadata.jsonl", "metadata.csv", "metadata.parquet"), ("*.parquet",), ("*.tar",), ("*.jsonl", "*.json"))
"""Files to look for in a folder, in this order; first at its top, then up to two folders down."""
SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "val", "valid", "dev"), "validation")
"""Words in file and folder names that stand for a split."""
MOST_FILES = 100_000
"""Files that a pattern may stand for."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PATTERN = re.compile(r"[*\[{]")


def open_rows(source: Source, split: str, limit: int | None) -> Rows:
    """Open the first `limit` rows of a source; `split` is read where the source names none.

    Raises:
        InputError: there is no such data set, it cannot be read, or it has no such split.
        EnvironmentLacks: the hub cannot be reached.
    """
    path = Path(source.name)
    if _is_folder(path):
        return _open_folder(path, source, split, limit)
    files = [path] if is_regular(path) else _matching(source.name)
    if files:
        splits = {file: _words(file.name) for file in files}
        return open_files(_of_split(splits, source.split, source.name), source.name, limit)
    if is_hub_id(source.name):
        from vlmc.toolchain.data.forms.hub import open_hub

        return open_hub(source, source.split or split)
    raise nothing_at(source.name)


def is_hub_id(name: str) -> bool:
    """Whether a name that does not exist on disk may be a data set of the hub."""
    return _HUB_ID.fullmatch(name) is not None and not (Path(name).exists() or Path(name).suffix in FORMS or name[0] == ".")


def nothing_at(name: str) -> InputError:
    """Return the error for a name that is not a data set."""
    return InputError(
        f"no data set at {name}: give {', '.join(builtin.data_sets())}, a {', '.join(FORMS)} file, "
        "a folder or a pattern of such files, or a hub id"
    )


def open_files(files: Sequence[Path], name: str, limit: int | None) -> Rows:
    """Open files of one form, one after the other."""
    forms = {file.suffix for file in files}
    if len(forms) > 1 or not forms <= set(FORMS):
        raise nothing_at(name)
    if forms == {".parquet"}:
        from vlmc.toolchain.data.forms.parquet import ParquetRows

        return ParquetRows(files, limit)
    if forms == {".tar"}:
        from vlmc.toolchain.data.forms.tar import TarRows

        return TarRows(files, limit)
    return open_text(files[0], limit) if len(files) == 1 else ManyRows([open_text(file, limit) for file in files])


def _open_folder(folder: Path, source: Source, split: str, limit: int | None) -> Rows:
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        from vlmc.toolchain.data.forms.hub import open_saved

        return open_saved(folder, source, source.split or split)
    for depth, layout in product(("", "*/", "*/*/"), LAYOUTS):
        files = sorted(path for pattern in layout for path in folder.glob(depth + pattern) if is_regular(path))
        if files:
            splits = {file: _words(file.relative_to(folder).as_posix()) for file in files}
            named = any(words & set(SPLITS.values()) for words in splits.values())
            wanted = source.split or (split if named else None)
            return open_files(_of_split(splits, wanted, source.name), source.name, limit)
    raise InputError(
        f"{folder} holds no data set: no metadata.jsonl or metadata.csv with images, no .parquet, .tar, .jsonl or .json"
    )


def _words(name: str) -> frozenset[str]:
    """Return the words of a file's name, with the usual name for a split."""
    words = re.split(r"[^a-z0-9]+", name.casefold())
    return frozenset(SPLITS.get(word, word) for word in words)


def _of_split(files: Mapping[Path, frozenset[str]], wanted: str | None, name: str) -> list[Path]:
    """Return the files whose words name a split; all where none is wanted."""
    if wanted is None:
        return list(files)
    split = SPLITS.get(wanted, wanted)
    found = [file for file, words in files.items() if split in words]
    if not found:
        known = sorted(set[str]().union(*files.values()) & set(SPLITS.values()))
        there = f"it has {', '.join(known)}; choose one with --split" if known else "leave --split out"
        raise InputError(f"{name} has no split {wanted}: {there}")
    return found


def _matching(name: str) -> list[Path]:
    """Return the files of a pattern with *, [..], {a,b} or {000..123}; each file of a brace must exist."""
    if not _PATTERN.search(name):
        return []
    found: list[Path] = []
    for number, pattern in enumerate(_braces(name)):
        if number == MOST_FILES:
            raise InputError(f"no data set at {name[:200]}: it stands for more than {MOST_FILES:,} files")
        files = sorted(glob(pattern)) if re.search(r"[*\[]", pattern) else [pattern]
        found += [Path(file) for file in files]
        if missing := next((file for file in files if not is_regular(Path(file))), None):
            raise InputError(f"no data set at {name}: no file at {missing}")
    if not found:
        raise InputError(f"no data set at {name}: no file at {name}")
    return found


def _braces(name: str) -> Iterator[str]:
    """Yield the name with each choice of its braces."""
    match = re.search(r"\{([^{}]*)\}", name)
    if match is None:
        yield name
        return
    span = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", match[1])
    choices: Iterable[str] = match[1].split(",")
    if span is not None:
        choices = (str(number).zfill(len(span[1])) for number in range(int(span[1]), int(span[2]) + 1))
    for choice in choices:
        yield from _braces(name[: match.start()] + choice + name[match.end() :])


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        return False
