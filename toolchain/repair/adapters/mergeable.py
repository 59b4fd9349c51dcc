"""Which adapters may be merged into a model: those that were trained on it, and whose updates may be masked."""

from collections.abc import Sequence
from pathlib import Path

from vlmc.runtime.artifact import Artifact, digest_of_files
from vlmc.runtime.artifact.folder import MANIFEST, model_files
from vlmc.runtime.errors import InputError
from vlmc.toolchain.repair.adapters.files import FOLDER, digest_of_adapter, load_adapter


def find_adapter(folder: Path) -> Path:
    """Return the folder of an artifact's adapter; any other folder is returned as it is.

    Raises:
        InputError: the adapter of an artifact is not the one that the manifest lists.
    """
    if not (folder / MANIFEST).is_file():
        return folder
    Artifact.open(folder).verify_files(f"{FOLDER}/")
    return folder / FOLDER


def check_adapters(folders: Sequence[Path], artifact: Artifact) -> None:
    """Raise InputError unless all of these adapters, each named once, may be merged into the artifact's model."""
    base = _base_digest(artifact)
    for folder in folders:
        _check_adapter(folder, base)
    if len({digest_of_adapter(folder) for folder in folders}) < len(folders):
        raise InputError("the same adapter is named twice: name each once")


def _check_adapter(folder: Path, base: str) -> None:
    saved = load_adapter(folder)
    if saved.method.merged is None:
        raise InputError(
            f"{folder} was trained by {saved.method.name}, which is kept apart: merged, its update would fill what was "
            "pruned; repair with ressa, or with lora-remask to prune the sum again"
        )
    if saved.base_digest != base:
        raise InputError(f"{folder} was trained on another model than the one beside it: repair again")


def _base_digest(artifact: Artifact) -> str:
    """Return the digest of the model without its adapter: that of the pruned artifact."""
    files = artifact.manifest.files
    base = [path for path in model_files(files) if not path.startswith(f"{FOLDER}/")]
    return digest_of_files({path: files[path].sha256 for path in base})
