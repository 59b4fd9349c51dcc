"""Writing an artifact so that a killed run leaves the old one or the new one, never half of one."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vlmc.runtime.artifact.digest import sha256_file
from vlmc.runtime.artifact.folder import MANIFEST, Artifact
from vlmc.runtime.artifact.manifest import File, Manifest
from vlmc.runtime.artifact.version_1 import GRAPHS
from vlmc.runtime.deployment import DEPLOYMENT
from vlmc.runtime.errors import InputError


class Draft:
    """An artifact that is being written, in a folder beside its destination; `seal` completes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest: Manifest | None = None

    def seal(self, manifest: Manifest) -> None:
        """Set the manifest; the files in the draft are listed in it here."""
        _follow_umask(self.root)
        self.manifest = manifest.model_copy(update={"files": _list_files(self.root)})


@contextmanager
def write(destination: Path, *, force: bool = False) -> Iterator[Draft]:
    """Yield a draft; when the block ends with a sealed draft, move it to `destination` in one step.

    Nothing appears at the destination when the block raises. With `force` an existing artifact is replaced;
    a folder that is not an artifact never is.

    Raises:
        InputError: the destination exists and may not be replaced.
    """
    check_destination(destination, force=force)
    partial = destination.with_name(destination.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        draft = Draft(partial)
        yield draft
        if draft.manifest is None:
            raise RuntimeError(f"the draft of {destination} was never sealed")
        write_text(partial / MANIFEST, draft.manifest.to_json())
        replace_folder(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def extend(artifact: Artifact, folder: str) -> Iterator[Path]:
    """Yield an empty folder to fill; then move it into the artifact as `folder/`, replacing one of that name.

    The old folder is removed from the manifest first and the new one listed last: a killed run leaves an artifact without
    either.
    """
    partial = artifact.root / f".{folder}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        kept = {path: file for path, file in artifact.manifest.files.items() if not path.startswith(f"{folder}/")}
        _follow_umask(partial)
        added = {f"{folder}/{path}": file for path, file in _list_files(partial).items()}
        update_manifest(artifact, artifact.manifest.model_copy(update={"files": kept}))
        replace_folder(partial, artifact.root / folder)
        update_manifest(artifact, artifact.manifest.model_copy(update={"files": dict(sorted((kept | added).items()))}))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def put_texts(artifact: Artifact, texts: Mapping[str, str]) -> Artifact:
    """Write small files, such as reports and the card, into a finished artifact, and list them in its manifest."""
    files = {path: file for path, file in artifact.manifest.files.items() if path not in texts}
    update_manifest(artifact, artifact.manifest.model_copy(update={"files": files}))
    for path, text in texts.items():
        (artifact.root / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(artifact.root / path, text)
        files[path] = _describe(artifact.root / path)
    update_manifest(artifact, artifact.manifest.model_copy(update={"files": dict(sorted(files.items()))}))
    return Artifact.open(artifact.root)


def update_manifest(artifact: Artifact, manifest: Manifest) -> None:
    """Replace the artifact's manifest in one step; what one of version 1 says about serving is put beside its graphs."""
    write_text(artifact.root / MANIFEST, _with_inherited(artifact, manifest).to_json())


def _with_inherited(artifact: Artifact, manifest: Manifest) -> Manifest:
    """Return the manifest with a `deployment.json` beside the ONNX graphs of an artifact that was of version 1."""
    path = f"{GRAPHS}/{DEPLOYMENT}"
    has_graphs = any(name.startswith(f"{GRAPHS}/") for name in manifest.files)
    if artifact.inherited is None or not has_graphs or path in manifest.files:
        return manifest
    write_text(artifact.root / path, artifact.inherited.to_json())
    files = {**manifest.files, path: _describe(artifact.root / path)}
    return manifest.model_copy(update={"files": dict(sorted(files.items()))})


def check_destination(destination: Path, *, force: bool) -> None:
    """Raise InputError unless `destination` is free, or an artifact that `force` allows to replace."""
    if not destination.exists() and not destination.is_symlink():
        return
    if not (destination / MANIFEST).is_file():
        raise InputError(f"{destination} exists and is not a vlmc artifact: name another folder with --out or move it away")
    if not force:
        raise InputError(f"{destination} exists: add --force to replace it or name another folder with --out")


def replace_folder(new: Path, destination: Path) -> None:
    """Rename `new` to `destination`; an old folder is moved aside first and deleted last."""
    previous = destination.with_name(destination.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if destination.exists():
        destination.rename(previous)
    new.rename(destination)
    shutil.rmtree(previous, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole file in one step: to a sibling first, flushed to the disk, then renamed."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def _follow_umask(root: Path) -> None:
    """Give new files the usual permissions of new files: safetensors makes its own readable by their owner only.

    A file that is a hard link or behind a symbolic one was not written here and is left as it is.
    """
    umask = os.umask(0)
    os.umask(umask)
    for path in root.rglob("*"):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            path.chmod(0o666 & ~umask)


def _list_files(root: Path) -> dict[str, File]:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): _describe(path) for path in paths if path.name != MANIFEST}


def _describe(path: Path) -> File:
    return File(size=path.stat().st_size, sha256=sha256_file(path))
