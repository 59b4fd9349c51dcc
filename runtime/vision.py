"""Remembered: a vision encoder that keeps the features of the images that it saw last.

Shapes: X tiles or patches of all images.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from threading import Lock
from typing import Any, final

import numpy as np

from vlmc.runtime.deployment import AnyRes, Patches, Tiles
from vlmc.runtime.sessions import Array, Session

Feeds = Mapping[str, Array]
KEPT = 64 << 20
"""Bytes of features that are kept, unless another number is given."""


@final
class Remembered(Session):
    """A vision encoder whose images, or tiles of images, are looked up by their SHA-256 before they are run.

    What was used last is kept, up to `limit` bytes; 0 keeps nothing. Tiles that are not known run together, images in their
    own size one by one: their attention would else take memory with the square of all patches.
    """

    def __init__(self, session: Session, layout: Tiles | Patches | AnyRes, limit: int = KEPT) -> None:
        self._session, self._patches, self._limit = session, isinstance(layout, Patches), limit
        self._kept: OrderedDict[bytes, dict[str, Array]] = OrderedDict()
        self._bytes, self._lock = 0, Lock()

    @property
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        return self._session.inputs

    @property
    def kept_bytes(self) -> int:
        """How many bytes of features are kept now."""
        return self._bytes

    def run(self, feeds: Feeds) -> dict[str, Array]:
        if not (self._limit or self._patches):
            return self._session.run(feeds)
        pieces = list(_images(feeds)) if self._patches else _tiles(feeds)
        keys = [_digest(piece) if self._limit else str(n).encode() for n, piece in enumerate(pieces)]
        found = self._known(keys)
        missing = {key: piece for key, piece in zip(keys, pieces, strict=True) if key not in found}
        found |= self._look(missing)
        return {name: np.concatenate([found[key][name] for key in keys]) for name in found[keys[0]]}

    def close(self) -> None:
        self._session.close()
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, Array]]:
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        return found

    def _look(self, missing: Mapping[bytes, Feeds]) -> dict[bytes, dict[str, Array]]:
        """Run the encoder on what is not known, and keep what it finds."""
        if self._patches or len(missing) < 2:
            found = {key: self._session.run(piece) for key, piece in missing.items()}
        else:
            together = {name: np.concatenate([piece[name] for piece in missing.values()]) for name in self.inputs}
            outputs = {name: np.split(array, len(missing)) for name, array in self._session.run(together).items()}
            found = {key: {name: outputs[name][n] for name in outputs} for n, key in enumerate(missing)}
        if self._limit:
            self._keep(found)
        return found

    def _keep(self, found: Mapping[bytes, Mapping[str, Array]]) -> None:
        with self._lock:
            for key, features in found.items():
                if key not in self._kept:
                    self._kept[key] = {name: array.copy() for name, array in features.items()}
                    self._bytes += _size(features)
            while self._bytes > self._limit:
                self._bytes -= _size(self._kept.popitem(last=False)[1])


def _tiles(feeds: Feeds) -> list[Feeds]:
    """Return every tile by itself; all of them together where an input is not one of each tile."""
    counts = {len(array) for array in feeds.values()}
    if len(counts) != 1:
        return [feeds]
    return [{name: array[n : n + 1] for name, array in feeds.items()} for n in range(counts.pop())]


def _images(feeds: Feeds) -> Iterator[Feeds]:
    """Yield the patches of every image by themselves, with its windows numbered from 0."""
    numbers_X = feeds["patch_images"]
    edges = [0, *(np.flatnonzero(np.diff(numbers_X)) + 1).tolist(), len(numbers_X)]
    for begin, end in pairwise(edges):
        image = {name: array[begin:end] for name, array in feeds.items()}
        yield image | {name: image[name] - image[name].min() for name in ("patch_images", "patch_windows") if name in image}


def _digest(piece: Feeds) -> bytes:
    digest = sha256()
    for name, array in sorted(piece.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _size(features: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in features.values())
