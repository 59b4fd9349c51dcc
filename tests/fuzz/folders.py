"""Spoiling an artifact or a model: one file of it by its kind, the folder itself, or the manifest."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz.graph_files import spoil_graph
from tests.fuzz.spoiling import Spoiled, edit, spoil_bytes, spoil_json, spoil_same_size
from tests.fuzz.tensor_files import spoil_tensors

MANIFEST, CARD = "manifest.json", "README.md"
LOADERS = (
    "zz.safetensors",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.safetensors",
    "adapter_config.json",
    "modeling_x.py",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "chat_template.json",
)
"""Files that some loader picks up where they stand at a model's root: weights, indexes, code, tokenizers, processors."""
_NAMES = (
    "a\nb",
    "\x1b[31m",
    "x" * 255,
    "é" * 120,
    " ",
    "-",
    "\udcff",
    "con",
    ".hidden",
    "manifest.json.partial",
    "con\u202etxt",
)
_SPOILERS: dict[str, Callable[[Random, bytes], Spoiled]] = {
    ".json": spoil_json,
    ".safetensors": spoil_tensors,
    ".onnx": spoil_graph,
}


def spoil_folder(random: Random, folder: Path) -> str:
    """Spoil one thing in a folder, three times of four a file's content; say what."""
    return _spoil_file(random, folder) if random.random() < 0.75 else _spoil_tree(random, folder)


def spoil_manifest(random: Random, folder: Path) -> str:
    """Edit an artifact's manifest; half the time its checksum is made to fit."""
    path = folder / MANIFEST
    if random.random() < 0.5:
        content, what = spoil_json(random, path.read_bytes())
        path.write_bytes(content)
        return f"manifest: {what}"
    tree, what = edit(random, json.loads(path.read_text()))
    write_signed(path, tree)
    return f"manifest, signed: {what}"


def write_signed(path: Path, tree: object) -> None:
    """Write a manifest whose checksum fits; what is no manifest at all is written as it is."""
    if isinstance(tree, dict):
        fields = {name: value for name, value in tree.items() if name != "checksum"}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
        tree = {**fields, "checksum": hashlib.sha256(text).hexdigest()}
    path.write_bytes(json.dumps(tree, indent=2).encode("utf-8", "surrogatepass"))


def relist(folder: Path) -> None:
    """List every file of the folder in its manifest anew, as whoever made the artifact could: a check of SHA-256 passes."""
    content = json.loads((folder / MANIFEST).read_text())
    content["files"] = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and not path.is_symlink()
    }
    write_signed(folder / MANIFEST, content)


def differing(folder: Path, manifest: bytes) -> list[str]:
    """Return the files, listed in the given manifest, that are not there with the bytes it lists; the card apart."""
    files = json.loads(manifest)["files"]
    return [name for name, file in files.items() if name != CARD and _sha256(folder / name) != file["sha256"]]


def unlisted(folder: Path, manifest: bytes) -> list[str]:
    """Return the files at the root that a loader could pick up and the manifest does not list."""
    files = json.loads(manifest)["files"]
    return [name for name in LOADERS if name not in files and (folder / name).exists()]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _spoil_file(random: Random, folder: Path) -> str:
    path = random.choice(_files(folder))
    spoil = spoil_same_size if random.random() < 0.3 else _SPOILERS.get(path.suffix, spoil_bytes)
    content, what = spoil(random, path.read_bytes())
    path.write_bytes(content)
    return f"{path.relative_to(folder)}: {what}"


def _spoil_tree(random: Random, folder: Path) -> str:
    path = random.choice(_files(folder))
    change = random.choice([_delete, _move, _swap, _link, _link, _pipe, _put_folder, _add_loader, _add_loader, _add_name])
    return change(random, folder, path)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _delete(random: Random, folder: Path, path: Path) -> str:
    path.unlink()
    return f"{path.relative_to(folder)} deleted"


def _move(random: Random, folder: Path, path: Path) -> str:
    path.rename(path.with_name(f"other-{path.name}"))
    return f"{path.relative_to(folder)} renamed"


def _swap(random: Random, folder: Path, path: Path) -> str:
    other = random.choice(_files(folder))
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)
    return f"{path.relative_to(folder)} and {other.relative_to(folder)} swapped"


def _link(random: Random, folder: Path, path: Path) -> str:
    target = random.choice(
        ["../outside/canary.txt", "/dev/zero", "/dev/null", path.name, "nowhere", "../../outside/folder", "."]
    )
    path.unlink()
    path.symlink_to(target)
    return f"{path.relative_to(folder)} -> {target}"


def _pipe(random: Random, folder: Path, path: Path) -> str:
    path.unlink()
    os.mkfifo(path)
    return f"{path.relative_to(folder)} is a pipe"


def _put_folder(random: Random, folder: Path, path: Path) -> str:
    path.unlink()
    path.mkdir()
    return f"{path.relative_to(folder)} is a folder"


def _add_loader(random: Random, folder: Path, path: Path) -> str:
    name = random.choice(LOADERS)
    source = folder / "model.safetensors" if name.endswith((".safetensors", ".bin")) else path
    content = source.read_bytes() if random.random() < 0.5 and source.is_file() else b"{}"
    (folder / name).write_bytes(content)
    return f"{name} added"


def _add_name(random: Random, folder: Path, path: Path) -> str:
    name = random.choice(_NAMES)
    (folder / name).write_bytes(b"x")
    return f"{ascii(name)[:40]} added"
