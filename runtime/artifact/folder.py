"""Opening an artifact: the manifest is read, every file is there in full, and nothing is trusted before that."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from vlmc.runtime.artifact.digest import digest_of_files, sha256_file
from vlmc.runtime.artifact.manifest import SCHEMA_VERSION, File, Manifest, checksum
from vlmc.runtime.errors import InputError

MANIFEST = "manifest.json"
CARD = "README.md"  # the model card: people write in it too, so its bytes are never held against the manifest
EXTRAS = ("onnx/", "tensorrt/", "reports/", CARD)  # what later steps add: no part of the model's digest


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk; `root` is its folder."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, root: Path | str) -> "Artifact":
        """Read the manifest and check that every file but the model card is there with the size that it promises.

        Raises:
            InputError: no such folder, no artifact, a manifest that cannot be read, a file missing or cut short.
        """
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"no artifact at {root}: make one with 'vlmc compress --out {root}'")
        if not (root / MANIFEST).is_file():
            raise InputError(f"{root} is no vlmc artifact: it has no {MANIFEST}")
        artifact = cls(root, _read_manifest(root / MANIFEST))
        artifact._check_sizes()
        return artifact

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the model's files as the manifest lists them; graphs, reports and the card do not count."""
        return digest_of_files({path: file.sha256 for path, file in self.manifest.files.items() if is_model(path)})

    @property
    def card_note(self) -> str | None:
        """What there is to say of the model card: that it is not the one that vlmc wrote last. None: it is."""
        listed, path = self.manifest.files.get(CARD), self.root / CARD
        if listed is None or (path.is_file() and sha256_file(path) == listed.sha256):
            return None
        done = "was changed" if path.is_file() else "was removed"
        return f"{path} {done} after vlmc wrote it: what it says is no part of what is proven here"

    def verify_files(self, prefix: str = "") -> None:
        """Hash every file whose path starts with `prefix`, but the model card, and compare with the manifest.

        Raises:
            InputError: a file's bytes are not those that the manifest lists.
        """
        for path, file in self._proven():
            if path.startswith(prefix) and sha256_file(self.root / path) != file.sha256:
                raise InputError(
                    f"{self.root / path} is not the file that the manifest lists (SHA-256 differs): "
                    "copy the artifact again or make it anew"
                )

    def _proven(self) -> Iterator[tuple[str, File]]:
        return ((path, file) for path, file in self.manifest.files.items() if path != CARD)

    def _check_sizes(self) -> None:
        for path, file in self._proven():
            on_disk = self.root / path
            if not on_disk.is_file():
                raise InputError(f"{on_disk} is missing: copy the artifact again or make it anew")
            if on_disk.stat().st_size != file.size:
                raise InputError(
                    f"{on_disk} has {on_disk.stat().st_size} bytes, the manifest says {file.size}: "
                    "copy the artifact again or make it anew"
                )


def is_model(path: str) -> bool:
    """Whether the file belongs to the model itself rather than to what was added around it."""
    return not path.startswith(EXTRAS)


def _read_manifest(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}; restore it or make the artifact anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is not valid: it holds no object; restore it or make the artifact anew")
    version = content.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(f"{path} has schema version {version}, this vlmc reads {SCHEMA_VERSION}: upgrade vlmc")
    promised = content.pop("checksum", None)
    if promised != checksum(content):
        raise InputError(f"{path} was changed after it was written (checksum differs): restore it or make the artifact anew")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise InputError(f"{path} is not valid at {where}: {first['msg']}; restore it or make the artifact anew") from None
