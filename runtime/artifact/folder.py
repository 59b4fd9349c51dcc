"""Opening an artifact: the manifest is read and every file checked before anything is used."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from vlmc.runtime.artifact.digest import digest_of_files, sha256_file
from vlmc.runtime.artifact.manifest import SCHEMA_VERSION, File, Manifest, checksum
from vlmc.runtime.artifact.unlisted import refuse_unlisted
from vlmc.runtime.artifact.version_1 import upgrade
from vlmc.runtime.deployment import DEPLOYMENT, Deployment
from vlmc.runtime.errors import InputError
from vlmc.runtime.json_text import read_json

MANIFEST = "manifest.json"
CARD = "README.md"  # the model card: people edit it, so its bytes are never compared with the manifest
_AT_THE_ROOT = {".safetensors", ".json", ".txt", ".jinja", ".model", ".py"}
"""Weights, masks, configuration, tokenizer, processor, and code that a user trusted when the model was pruned."""
_ADAPTER = "adapter/"
_TOKENIZER = "tokenizer_config.json"  # a folder with one is a second tokenizer
GENAI = "genai"  # but this one: an export for onnxruntime-genai, with a copy of the tokenizer


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk; `root` is its folder.

    `inherited` is what a manifest of version 1 says about serving; since version 2 that is beside the graphs.
    """

    root: Path
    manifest: Manifest
    inherited: Deployment | None = None

    @classmethod
    def open(cls, root: Path | str, *, sizes: bool = True) -> "Artifact":
        """Read the manifest; check that every file but the model card is there with its size, and that no loader finds more.

        With `sizes=False` the listed files are not looked at.

        Raises:
            InputError: there is no such folder, it is not an artifact, its manifest cannot be read, a file is missing or
                cut short, or there is one that the manifest does not list and a loader could take for a part of the model.
        """
        root = Path(root)
        if not _is_folder(root):
            raise InputError(f"no artifact at {root}: make one with 'vlmc compress --out {root}'")
        if not (root / MANIFEST).is_file():
            raise InputError(f"{root} is not a vlmc artifact: it has no {MANIFEST}")
        artifact = cls(root, *_read_manifest(root / MANIFEST))
        if sizes:
            artifact._check_sizes()
        refuse_unlisted(root, artifact.manifest.files.keys() | {MANIFEST})
        return artifact

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files of `model_files`, as the manifest lists them."""
        files = self.manifest.files
        return digest_of_files({path: files[path].sha256 for path in model_files(files)})

    def deployment(self, folder: str) -> Deployment | None:
        """Return how the graphs in that folder of the artifact are fed; None: it has no such graphs.

        Raises:
            InputError: `deployment.json` is damaged, or a newer vlmc wrote it.
        """
        if f"{folder}/{DEPLOYMENT}" in self.manifest.files:
            return Deployment.read(self.root / folder / DEPLOYMENT)
        return self.inherited if any(path.startswith(f"{folder}/") for path in self.manifest.files) else None

    @property
    def card_note(self) -> str | None:
        """A line that says that the model card was changed or removed; None: it is the one that vlmc wrote last."""
        listed, path = self.manifest.files.get(CARD), self.root / CARD
        if listed is None or (path.is_file() and sha256_file(path) == listed.sha256):
            return None
        done = "was changed" if path.is_file() else "was removed"
        return f"{path} {done} after vlmc wrote it: what it says is not part of what is verified here"

    def verify_files(self, prefix: str = "") -> None:
        """Hash every file whose path starts with `prefix`, except the model card, and compare with the manifest.

        Raises:
            InputError: a file's bytes are not those that the manifest lists.
        """
        for path in self.differing(path for path, _ in self._proven() if path.startswith(prefix)):
            raise InputError(self.difference(path))

    def differing(self, paths: Iterable[str] | None = None, hashed: Callable[[Path], str] = sha256_file) -> Iterator[str]:
        """Yield those of the files, by default of all but the model card, whose SHA-256 is not what the manifest lists."""
        files = self.manifest.files
        for path in [path for path, _ in self._proven()] if paths is None else paths:
            if hashed(self.root / path) != files[path].sha256:
                yield path

    def difference(self, path: str) -> str:
        """Return the message for a file that differs."""
        return (
            f"{self.root / path} is not the file that the manifest lists (SHA-256 differs): "
            "copy the artifact again or create it again"
        )

    def _proven(self) -> Iterator[tuple[str, File]]:
        return ((path, file) for path, file in self.manifest.files.items() if path != CARD)

    def _check_sizes(self) -> None:
        for path, file in self._proven():
            on_disk = self.root / path
            if not on_disk.is_file():
                raise InputError(f"{on_disk} is missing: copy the artifact again or create it again")
            if on_disk.stat().st_size != file.size:
                raise InputError(
                    f"{on_disk} has {on_disk.stat().st_size} bytes, the manifest says {file.size}: "
                    "copy the artifact again or create it again"
                )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def model_files(paths: Iterable[str]) -> list[str]:
    """Return the files that make up the model: those at the root but the card, the adapter, and tokenizers in folders."""
    known = set(paths)
    return sorted(path for path in known if _is_model(path, known))


def _is_model(path: str, known: set[str]) -> bool:
    folder, slash, _ = path.partition("/")
    if not slash:
        return Path(path).suffix in _AT_THE_ROOT
    return path.startswith(_ADAPTER) or (folder != GENAI and f"{folder}/{_TOKENIZER}" in known)


def _read_manifest(path: Path) -> tuple[Manifest, Deployment | None]:
    """Return the manifest and, for one of version 1, what it says about serving."""
    try:
        content = read_json(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}; restore it or create the artifact again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is not valid: it is not a JSON object; restore it or create the artifact again")
    version = content.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(f"{path} has schema version {version}, this vlmc reads {SCHEMA_VERSION}: upgrade vlmc")
    promised = content.pop("checksum", None)
    if promised != checksum(content):
        raise InputError(f"{path} was edited (checksum differs): restore it or create the artifact again")
    try:
        fields, inherited = upgrade(content) if version == 1 else (content, None)
        return Manifest.model_validate(fields), inherited
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise InputError(f"{path} is not valid at {where}: {first['msg']}; restore it or create it again") from None
