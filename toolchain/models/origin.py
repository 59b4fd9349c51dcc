"""The dense model that an artifact was made from: known by name and digest there, found again by what this machine knows.

An artifact travels, so it holds no path. Where a dense model lay is noted, by its digest, in the user's cache folder.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain import builtin
from vlmc.toolchain.machine.cache import cache_folder
from vlmc.toolchain.models.saved import SavedModel


def find_dense(artifact: Artifact, named: str | None = None) -> SavedModel:
    """Return the dense model that the artifact was made from, once its digest is the one that the artifact holds.

    It is looked for where the user says (`named`); else, by the name in the artifact, among the built-in models, where it
    was last on this machine, in the current folder, beside the artifact, and as a hub id.

    Raises:
        InputError: it is not found, or what is found is another model.
    """
    origin, others = artifact.manifest.origin, []
    for candidate in [SavedModel.find(named)] if named is not None else _candidates(artifact):
        if candidate.digest == origin.digest:
            remember(candidate)
            return candidate
        others.append(candidate.name)
    if others:
        raise InputError(
            f"{others[0]} is not the model that {artifact.root} was pruned from (digest differs): name that with --dense"
        )
    raise InputError(
        f"the dense model {origin.model} that {artifact.root} was pruned from is not found: name its folder with --dense"
    )


def remember(dense: SavedModel) -> None:
    """Note where a dense model lies, for this user on this machine; a cache that cannot be written is no error."""
    if dense.name in builtin.models():
        return
    with suppress(OSError, RuntimeError):  # a folder that cannot be written, or no home folder
        note = _note(dense.digest)
        partial = note.with_name(f"{note.name}.{os.getpid()}")
        note.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(f"{dense.folder.absolute()}\n", encoding="utf-8")
        partial.replace(note)


def _candidates(artifact: Artifact) -> Iterator[SavedModel]:
    name = artifact.manifest.origin.model
    if name in builtin.models():
        yield SavedModel.find(name)
        return
    beside = artifact.root.absolute().parent
    for folder in (*_remembered(artifact.manifest.origin.digest), Path(name), beside / name, beside.parent / name):
        if (folder / "config.json").is_file():
            yield SavedModel(str(folder), folder)
    if "/" in name and not Path(name).exists():
        with suppress(InputError, EnvironmentLacks):
            yield SavedModel.find(name)


def _remembered(digest: str) -> Iterator[Path]:
    with suppress(OSError, RuntimeError, UnicodeDecodeError):
        yield Path(_note(digest).read_text(encoding="utf-8").removesuffix("\n"))


def _note(digest: str) -> Path:
    return cache_folder() / "dense" / f"{digest}.txt"
