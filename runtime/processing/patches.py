"""Patches of images in their own size: where each lies, and which of a learned grid's positions it stands between.

Shapes: G images, N patches of all images; a grid is (time, height, width) in patches.
"""

import numpy as np

from vlmc.runtime.deployment import Patches
from vlmc.runtime.processing.base import Array


def patch_inputs(grids_G3: Array, layout: Patches) -> dict[str, Array]:
    """Return the vision encoder's inputs that follow from the images' sizes."""
    places = patch_places(grids_G3, layout.merge, layout.window)
    return places if layout.grid is None else places | grid_neighbours(grids_G3, layout.merge, layout.grid)


def patch_places(grids_G3: Array, merge: int, window: int | None) -> dict[str, Array]:
    """Return for each patch its row and column (N, 2), its image's number (N) and its attention window's (N).

    Patches come image by image, frame by frame, and those of one token together. A window is `window` x `window` tokens;
    None: it is the whole image.
    """
    places: list[Array] = []
    images: list[Array] = []
    windows: list[Array] = []
    for grid in grids_G3:
        time, height, width = (int(side) for side in grid)
        rows, columns = (_by_token(axis, merge) for axis in np.indices((height, width)))
        across = 1 if window is None else -(-width // (merge * window))
        cells = np.zeros_like(rows) if window is None else rows // (merge * window) * across + columns // (merge * window)
        for _ in range(time):
            places.append(np.stack([rows, columns], -1))
            images.append(np.full(rows.shape, len(images), np.int64))
            windows.append(cells + (1 + windows[-1].max() if windows else 0))
    return {
        "patch_places": np.concatenate(places).astype(np.int64),
        "patch_images": np.concatenate(images),
        "patch_windows": np.concatenate(windows).astype(np.int64),
    }


def grid_neighbours(grids_G3: Array, merge: int, side: int) -> dict[str, Array]:
    """Return for each patch the four nearest of side x side positions (N, 4), and their shares (N, 4).

    It is bilinear resampling with the corners aligned: an image's corners have the positions of the grid's.
    """
    neighbours, shares = [], []
    for time, height, width in grids_G3.tolist():
        rows, columns = (_by_token(axis, merge) for axis in np.indices((height, width)))
        (above, below), down = _between(rows, height, side)
        (left, right), along = _between(columns, width, side)
        corners = [above * side + left, above * side + right, below * side + left, below * side + right]
        parts = [(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along]
        neighbours += [np.stack(corners, -1)] * time
        shares += [np.stack(parts, -1)] * time
    return {
        "patch_neighbours": np.concatenate(neighbours).astype(np.int64),
        "patch_shares": np.concatenate(shares).astype(np.float32),
    }


def _between(places_N: Array, size: int, side: int) -> tuple[tuple[Array, Array], Array]:
    """Return the learned positions before and after each place of an axis, and how far it is from the first: 0 to 1."""
    exact = places_N.astype(np.float32) * (side - 1) / max(size - 1, 1)
    before = np.floor(exact).astype(np.int64)
    return (before, np.minimum(before + 1, side - 1)), exact - before


def _by_token(values: Array, merge: int) -> Array:
    """Order the patches (height, width) so that the `merge` x `merge` ones of a token follow each other: (N,)."""
    height, width = values.shape
    return values.reshape(height // merge, merge, width // merge, merge).transpose(0, 2, 1, 3).reshape(-1)
