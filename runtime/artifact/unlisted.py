"""Files that the manifest does not list and that a loader could take for a part of the model: an error.

transformers looks for weights, indices, configurations, tokenizers, templates and code by their names, whatever the manifest
says. Whatever else people add, such as a licence, pictures or notes, is theirs.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from vlmc.runtime.errors import InputError

_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_ANYWHERE = {
    *(".safetensors", ".h5", ".msgpack", ".gguf"),
    *_PICKLES,
    *(".py", ".pyc", ".pyd", ".so"),
    *(".jinja", ".model", ".tiktoken"),
}
_IN_A_MODEL = {".json"}
_VOCABULARIES = {"vocab.txt", "merges.txt"}
_COMPILED = "triton/*/1/__pycache__/model.*.pyc"
"""What Triton Inference Server leaves beside the code of a model repository: no part of the model, and read by it alone."""
_ADAPTER, _TOKENIZER = "adapter", "tokenizer_config.json"


def refuse_unlisted(root: Path, listed: Collection[str]) -> None:
    """Check a folder for files that `listed`, paths relative to it, leaves out, and for pickles, listed or not.

    Hidden folders are not looked into.

    Raises:
        InputError: a loader could read one; the message names it.
    """
    for path in _files(root):
        if PurePosixPath(path).suffix.lower() in _PICKLES and path in listed:
            raise InputError(f"{root / path} is a pickle, which can run code when it is read: no artifact holds one")
        if path not in listed and _could_be_read(root, path):
            raise InputError(
                f"{root / path} is not listed in the manifest, but could be read as a part of the model: move it away"
            )


def _files(root: Path) -> Iterator[str]:
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(folder, name).relative_to(root).as_posix() for name in sorted(names))


def _could_be_read(root: Path, path: str) -> bool:
    pure = PurePosixPath(path)
    if pure.match(_COMPILED) and len(pure.parts) == _COMPILED.count("/") + 1:
        return False
    if pure.suffix.lower() in _ANYWHERE:
        return True
    folder = pure.parent
    is_model = folder in (PurePosixPath(), PurePosixPath(_ADAPTER)) or (root / folder / _TOKENIZER).is_file()
    return is_model and (pure.suffix.lower() in _IN_A_MODEL or pure.name in _VOCABULARIES)
