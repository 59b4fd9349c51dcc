"""What the builder timed, kept for the next build: a tactic that was timed on a GPU is not timed there again.

TensorRT's timing cache: a file for each version and GPU, in the user's cache folder. TensorRT-RTX times nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from vlmc.exporters.tensorrt.binding import Binding
from vlmc.runtime.cache import cache_folder


@contextmanager
def remembered(binding: Binding, config: Any, gpu: str) -> Iterator[None]:
    """Build inside with this configuration: it knows what earlier builds timed, and what it times is kept if it ends well.

    A cache that cannot be read or written, or that TensorRT refuses, costs time and nothing else.
    """
    if binding.ahead_of_time:
        yield
        return
    file = None
    with suppress(RuntimeError):  # the user has no home folder
        file = cache_folder() / "tensorrt" / f"{binding.version}-{gpu}.timing"
    if not (file is not None and _load(config, file)):
        _use(config, b"")
    yield
    if file is not None:
        with suppress(OSError):
            _save(file, bytes(config.get_timing_cache().serialize()))


def _load(config: Any, file: Path) -> bool:
    try:
        return _use(config, file.read_bytes())
    except OSError:
        return False


def _use(config: Any, content: bytes) -> bool:
    """Return whether TensorRT takes such a cache: it refuses those of another device."""
    cache = config.create_timing_cache(content)
    return cache is not None and bool(config.set_timing_cache(cache, False))


def _save(file: Path, content: bytes) -> None:
    """Write in one step; of two builds that end at once, the later one's counts."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=file.parent, delete=False) as stream:
        partial = Path(stream.name)
        try:
            stream.write(content)
        except BaseException:
            partial.unlink()
            raise
    partial.replace(file)
