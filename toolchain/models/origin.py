"""The dense model that an artifact was made from: the artifact has its name and digest, this machine knows where it is.

An artifact may move between machines, so it holds no path. The folders of dense models are remembered in the user's cache
folder, by digest.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vlmc.runtime.artifact import Artifact
from vlmc.runtime.cache import cache_folder
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain import builtin
from vlmc.toolchain.models.saved import SavedModel


def find_dense(artifact: Artifact, named: str | None = None) -> SavedModel:
    """Return the dense model that the artifact was made from, with its digest checked.

    It is where the user says (`named`), or else a built-in model, where it was last on this machine, a folder of its name in
    the current folder or beside the artifact, or on the hub.

    Raises:
        InputError: it is not found, or the model found is another one.
    """
    origin, others = artifact.manifest.origin, []
    for candidate in [SavedModel.find(named)] if named is not None else _candidates(artifact):
        if candidate.digest == origin.digest:
            remember(candidate)
            return candidate
        others.append(candidate.name)
    if others:
        raise InputError(
            f"{others[0]} is not the model that {artifact.root} was pruned from (digest differs): give that one with --dense"
        )
    raise InputError(
        f"the dense model {origin.model}, from which {artifact.root} was pruned, is not found: name its folder with --dense"
    )


def remember(dense: SavedModel) -> None:
    """Remember where a dense model is, for this user on this machine; a cache that cannot be written is ignored."""
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
