"""The models of a server: loaded, tried once, and known by a name."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from PIL import Image

from vlmc.runtime.artifact import Artifact
from vlmc.runtime.batching import Batcher
from vlmc.runtime.errors import InputError, shortened
from vlmc.runtime.model import ONNX, Model, load
from vlmc.runtime.vision import KEPT

_BLANK = 64  # pixels
_DENSE = "dense"


@final
@dataclass(frozen=True)
class Served:
    """A model that answers; `sparsity` is what its layers are pruned to, `digest` what its artifact is known by."""

    batcher: Batcher
    sparsity: str = _DENSE
    digest: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))


@contextmanager
def opened(
    artifacts: Sequence[Path],
    *,
    backend: str = ONNX,
    threads: int = 0,
    max_batch: int = 8,
    max_queue: int = 64,
    vision_bytes: int = KEPT,
    wait: float = 5.0,
) -> Iterator[dict[str, Served]]:
    """Load artifacts, and yield the models by name; at the end, end what they still answer after `wait` seconds.

    Each answers a blank image once: its files are hashed by then, and what cannot run is found before anybody asks.

    Raises:
        InputError: an artifact cannot be run, or is not what its manifest says.
        EnvironmentLacks: ONNX Runtime lacks something.
    """
    with ExitStack() as stack:
        found = {}
        for name, path in zip(names(artifacts), artifacts, strict=True):
            model = stack.enter_context(load(path, backend=backend, threads=threads, vision_bytes=vision_bytes))
            _try(model)
            batcher = Batcher(model, max_batch=max_batch, max_queue=max_queue)
            stack.callback(batcher.close, wait=wait)
            artifact = Artifact.open(path, sizes=False)
            found[name] = Served(batcher, sparsity(artifact), artifact.digest, int(path.stat().st_mtime))
        yield found


def _try(model: Model) -> None:
    form = model.deployment.prompt
    question = "?" if form.question is not None else f"{form.slot}?"
    model.generate(Image.new("RGB", (_BLANK, _BLANK), "white"), question, max_new_tokens=1)


def names(artifacts: Sequence[Path]) -> list[str]:
    """Return a name for each artifact: its folder's, with as many folders above it as tell all apart.

    Raises:
        InputError: one is given twice.
    """
    parts = [path.resolve().parts for path in artifacts]
    for depth in range(1, max(map(len, parts)) + 1):
        found = [shortened("/".join(one[-depth:])) for one in parts]
        if len(set(found)) == len(found):
            return found
    raise InputError(f"{artifacts[-1]} is given twice: give another artifact with --beside")


def sparsity(artifact: Artifact) -> str:
    """Return the patterns of an artifact's layers, such as `2:4`."""
    patterns = sorted({layer.pattern for layer in artifact.manifest.layers.values()})
    return ", ".join(patterns) or _DENSE
