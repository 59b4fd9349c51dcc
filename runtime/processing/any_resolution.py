"""LLaVA-NeXT's images: a whole image and the tiles of a canvas, and the order of their features.

Shapes: G images, X tiles of all images, F image features.
"""

from collections.abc import Mapping

import numpy as np

from vlmc.runtime.deployment import AnyRes
from vlmc.runtime.processing.base import Array


def tile_inputs(made: Mapping[str, Array], layout: AnyRes) -> dict[str, Array]:
    """Return the real tiles (X, ...) of all images, and the place of each image feature among the tiles' features (F).

    Place X * side * side is that of the learned feature which ends a row.
    """
    canvases = [_canvas(int(height), int(width), layout) for height, width in made["image_sizes"]]
    counts = [1 + rows * columns for rows, columns in canvases]
    pixels = np.concatenate([tiles[:count] for tiles, count in zip(made["pixel_values"], counts, strict=True)])
    end = len(pixels) * layout.side**2
    places, first = [], 0
    for (height, width), canvas, count in zip(made["image_sizes"].tolist(), canvases, counts, strict=True):
        area = layout.side**2
        rows = _unpadded(_arranged(canvas, layout.side), height, width) + (first + 1) * area
        ended = np.concatenate([rows, np.full((len(rows), 1), end)], 1)
        places += [np.arange(area) + first * area, ended.reshape(-1)]
        first += count
    return {"pixel_values": pixels, "feature_places": np.concatenate(places).astype(np.int64)}


def _canvas(height: int, width: int, layout: AnyRes) -> tuple[int, int]:
    """Return how many rows and columns of tiles the best canvas for an image has."""

    def fit(canvas: tuple[int, int]) -> tuple[int, int]:
        scale = min(canvas[1] / width, canvas[0] / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        return used, used - canvas[0] * canvas[1]

    best = max(layout.canvases, key=fit)
    return best[0] // layout.tile, best[1] // layout.tile


def _arranged(canvas: tuple[int, int], side: int) -> Array:
    """Return the places of a canvas's features, tile after tile, as they lie in the image: (rows, columns)."""
    rows, columns = canvas
    tiles = np.arange(rows * columns * side * side).reshape(rows, columns, side, side)
    return tiles.transpose(0, 2, 1, 3).reshape(rows * side, columns * side)


def _unpadded(places: Array, height: int, width: int) -> Array:
    """Return the places without the rows or columns that only pad the image to the canvas."""
    rows, columns = places.shape
    if width / height > columns / rows:
        margin = (rows - int(round(height * (columns / width), 7))) // 2
        return places[margin : rows - margin]
    margin = (columns - int(round(width * (rows / height), 7))) // 2
    return places[:, margin : columns - margin]
