"""Writing an artifact so that a killed run leaves the old one or the new one, never half of one."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vlmc.runtime.artifact.digest import sha256_file
from vlmc.runtime.artifact.folder import MANIFEST, Artifact
from vlmc.runtime.artifact.locking import WAIT, exclusive
from vlmc.runtime.artifact.manifest import File, Manifest
from vlmc.runtime.artifact.owned import OwnFolder, beside
from vlmc.runtime.artifact.texts import write_text
from vlmc.runtime.artifact.version_1 import GRAPHS
from vlmc.runtime.deployment import DEPLOYMENT
from vlmc.runtime.errors import InputError, VlmcError

_NEW, _OLD = "new", "old"  # in a scratch folder: what is being written, and what it replaces


class Draft:
    """An artifact that is being written in the folder `root`, beside its `destination`; `seal` completes it."""

    def __init__(self, root: Path, destination: Path) -> None:
        self.root, self.destination = root, destination
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
        InputError: the destination exists and may not be replaced, or another process is writing it.
    """
    with claimed(destination):
        check_destination(destination, force=force)
        with _scratch(destination) as scratch:
            draft = Draft(scratch / _NEW, destination)
            draft.root.mkdir()
            yield draft
            if draft.manifest is None:
                raise RuntimeError(f"the draft of {destination} was never sealed")
            write_text(draft.root / MANIFEST, draft.manifest.to_json())
            _swap(draft.root, destination, scratch / _OLD)


def replace(new: Path, destination: Path, *, force: bool = False) -> None:
    """Move a finished artifact to `destination`, which `write` would replace too.

    Raises:
        InputError: as `write`.
    """
    with claimed(destination):
        check_destination(destination, force=force)
        with _scratch(destination) as scratch:
            _swap(new, destination, scratch / _OLD)


@contextmanager
def extend(artifact: Artifact, folder: str) -> Iterator[Path]:
    """Yield an empty folder to fill; then move it into the artifact as `folder/`, replacing one of that name.

    The old folder is removed from the manifest first and the new one listed last: a killed run leaves an artifact without
    either, a failed one the artifact as it was.

    Raises:
        InputError: another process is writing that folder, it is not one inside the artifact, or the artifact was replaced
            or moved away meanwhile.
    """
    check_inside(artifact.root, f"{folder}/")
    with exclusive(artifact.root, folder):
        scratch = OwnFolder(artifact.root / f".{folder}.partial")
        new = scratch.make() / _NEW
        new.mkdir()
        try:
            yield new
            _follow_umask(new)
            added = {f"{folder}/{path}": file for path, file in _list_files(new).items()}
            with changing(artifact) as current:
                _exchange(current, folder, added, scratch.path)
        except Exception as error:
            if isinstance(error, VlmcError) or scratch.path.is_dir():
                raise
            raise InputError(f"{artifact.root} was replaced or moved away meanwhile: run the command again") from None
        finally:
            scratch.remove()


def _exchange(artifact: Artifact, folder: str, added: dict[str, File], scratch: Path) -> None:
    """Put the folder `new` of the scratch folder into the artifact and list its files; undo both if that fails."""
    kept = {path: file for path, file in artifact.manifest.files.items() if not path.startswith(f"{folder}/")}
    place, old = artifact.root / folder, scratch / _OLD
    try:
        update_manifest(artifact, artifact.manifest.model_copy(update={"files": kept}))
        _swap(scratch / _NEW, place, old)
        update_manifest(artifact, artifact.manifest.model_copy(update={"files": dict(sorted((kept | added).items()))}))
    except BaseException:
        if not (scratch / _NEW).exists():
            place.rename(scratch / _NEW)
        if old.exists():
            old.rename(place)
        update_manifest(artifact, artifact.manifest)
        raise


@contextmanager
def changing(artifact: Artifact) -> Iterator[Artifact]:
    """Hold the artifact's lock while its manifest is read, changed and written; yield the artifact as it is now.

    Raises:
        InputError: another process keeps on writing it, or it has become another model since `artifact` was opened.
    """
    with exclusive(artifact.root, wait=WAIT):
        current = Artifact.open(artifact.root)
        if current.digest != artifact.digest:
            raise InputError(f"{artifact.root} was replaced by another model meanwhile: run the command again")
        yield current


def put_texts(artifact: Artifact, texts: Mapping[str, str]) -> Artifact:
    """Write small files, such as reports and the card, into a finished artifact, and list them in its manifest.

    Raises:
        InputError: as `changing`, or a file would not lie in the artifact.
    """
    check_inside(artifact.root, *texts)
    with changing(artifact) as current:
        listed = current.manifest.files
        others = {path: file for path, file in listed.items() if path not in texts}
        update_manifest(current, current.manifest.model_copy(update={"files": others}))
        try:
            for path, text in texts.items():
                (current.root / path).parent.mkdir(parents=True, exist_ok=True)
                write_text(current.root / path, text)
        finally:  # after a failure, too, what is there is listed
            written = {path: _describe(current.root / path) for path in texts if (current.root / path).is_file()}
            files = dict(sorted((others | written).items()))
            update_manifest(current, current.manifest.model_copy(update={"files": files}))
        return Artifact.open(current.root)


def check_inside(root: Path, *paths: str) -> None:
    """Check that files to write, or folders (with a slash at the end), lie in the artifact and not behind a link.

    Raises:
        InputError: a folder on the way is a symbolic link, or not a folder; there is a folder in place of a file.
    """
    for path in paths:
        parts = Path(path).parts
        for place in (root.joinpath(*parts[:count]) for count in range(1, len(parts) + path.endswith("/"))):
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise InputError(f"{place} is not a folder of the artifact, but a link or a file: move it away")
        if not path.endswith("/") and (root / path).is_dir():
            raise InputError(f"{root / path} is a folder, and a file is to be written there: move it away")


def update_manifest(artifact: Artifact, manifest: Manifest) -> None:
    """Replace the artifact's manifest in one step; what one of version 1 says about serving is put beside its graphs."""
    write_text(artifact.root / MANIFEST, _with_inherited(artifact, manifest).to_json())


def _with_inherited(artifact: Artifact, manifest: Manifest) -> Manifest:
    """Return the manifest with a `deployment.json` beside the ONNX graphs of an artifact that was of version 1."""
    path = f"{GRAPHS}/{DEPLOYMENT}"
    has_graphs = any(name.startswith(f"{GRAPHS}/") for name in manifest.files)
    if artifact.inherited is None or not has_graphs or path in manifest.files:
        return manifest
    check_inside(artifact.root, path)
    write_text(artifact.root / path, artifact.inherited.to_json())
    files = {**manifest.files, path: _describe(artifact.root / path)}
    return manifest.model_copy(update={"files": dict(sorted(files.items()))})


def check_destination(destination: Path, *, force: bool) -> None:
    """Raise InputError unless `destination` is free, or an artifact that `force` allows to replace.

    What an interrupted replacement moved aside is put in its place first; so the caller holds the lock.
    """
    _check_foreign(destination)
    _scratch_of(destination).check()
    _recover(destination)
    if destination.exists() and not force:
        raise InputError(f"{destination} exists: add --force to replace it or name another folder with --out")


@contextmanager
def claimed(destination: Path) -> Iterator[None]:
    """Hold the lock of an artifact's place. No lock is put beside what is something else than an artifact.

    Raises:
        InputError: it is something else, or another process is writing it.
    """
    _check_foreign(destination)
    with exclusive(destination):
        yield


def _check_foreign(destination: Path) -> None:
    _scratch_of(destination)  # what has no name has nothing beside it
    if destination.is_symlink():
        raise InputError(f"{destination} is a symbolic link: name the folder that it leads to, or another one, with --out")
    if destination.exists() and not (destination / MANIFEST).is_file():
        raise InputError(f"{destination} exists and is not a vlmc artifact: name another folder with --out or move it away")


def _scratch_of(destination: Path) -> OwnFolder:
    """Return the folder beside a destination that holds what is to be moved there, and what was moved aside."""
    return OwnFolder(beside(destination, destination.name + ".partial"))


@contextmanager
def _scratch(destination: Path) -> Iterator[Path]:
    own = _scratch_of(destination)
    try:
        yield own.make()
    finally:
        _recover(destination)
        own.remove()


def _recover(destination: Path) -> None:
    """Finish a replacement that ended between its two renames: with the new folder if it is whole, or else the old one."""
    scratch = _scratch_of(destination).path
    new, old = scratch / _NEW, scratch / _OLD
    if old.is_dir() and not destination.exists():
        (new if (new / MANIFEST).is_file() else old).rename(destination)


def _swap(new: Path, destination: Path, aside: Path) -> None:
    """Rename `new` to `destination`; what is there is moved `aside`, and back if that fails."""
    if destination.exists():
        destination.rename(aside)
    try:
        new.rename(destination)
    except BaseException:
        if aside.exists() and not destination.exists():
            aside.rename(destination)
        raise


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
