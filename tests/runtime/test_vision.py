"""Images that were seen lately are not run again, within a limit of bytes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from vlmc.runtime.deployment import Patches, Tiles
from vlmc.runtime.processing.patches import patch_places
from vlmc.runtime.sessions import Array, Session
from vlmc.runtime.vision import Remembered


class Doubling(Session):
    """Returns twice the pixels, and counts what it was given."""

    def __init__(self, names: tuple[str, ...] = ("pixel_values",)) -> None:
        self.names, self.given = names, list[Mapping[str, Array]]()

    @property
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        return {name: (np.dtype(np.float32), ("n",)) for name in self.names}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.given.append(feeds)
        return {"image_features": 2 * feeds["pixel_values"]}

    def close(self) -> None:
        self.given.clear()


def tiles(*numbers: int) -> dict[str, Array]:
    return {"pixel_values": np.array(numbers, np.float32)[:, None].repeat(10, 1)}


def seen(session: Doubling) -> list[list[int]]:
    return [feeds["pixel_values"][:, 0].astype(int).tolist() for feeds in session.given]


def test_only_new_tiles_run_and_all_come_in_their_order() -> None:
    session = Doubling()
    remembered = Remembered(session, Tiles())
    for asked in ((1, 2), (2, 3, 1, 3), (3,)):
        np.testing.assert_array_equal(remembered.run(tiles(*asked))["image_features"], 2 * tiles(*asked)["pixel_values"])
    assert seen(session) == [[1, 2], [3]]


def test_what_was_not_used_for_longest_goes_first() -> None:
    session = Doubling()
    remembered = Remembered(session, Tiles(), limit=2 * 40)
    for number in (1, 2, 1, 3, 1, 2):
        remembered.run(tiles(number))
    assert seen(session) == [[1], [2], [3], [2]]
    assert remembered.kept_bytes == 80


@pytest.mark.parametrize("limit", [0, 39])
def test_nothing_is_kept_where_there_is_no_room(limit: int) -> None:
    session = Doubling()
    remembered = Remembered(session, Tiles(), limit=limit)
    for _ in range(2):
        np.testing.assert_array_equal(remembered.run(tiles(4, 4))["image_features"], 2 * tiles(4, 4)["pixel_values"])
    assert len(session.given) == 2
    assert remembered.kept_bytes == 0


def test_what_is_kept_is_a_copy() -> None:
    remembered = Remembered(Doubling(), Tiles())
    remembered.run(tiles(1))["image_features"][:] = 0
    assert remembered.run(tiles(1))["image_features"].tolist() == [[2.0] * 10]


def test_other_sizes_and_inputs_are_other_images() -> None:
    session = Doubling(("pixel_values", "mask"))
    remembered = Remembered(session, Tiles())
    for mask in (0, 1, 0):
        remembered.run(tiles(1) | {"mask": np.array([mask])})
    assert len(session.given) == 2


def test_inputs_that_are_not_one_of_each_tile_run_together() -> None:
    session = Doubling(("pixel_values", "sizes"))
    remembered = Remembered(session, Tiles())
    for _ in range(2):
        remembered.run(tiles(1, 2, 3) | {"sizes": np.array([[8, 9]])})
    assert seen(session) == [[1, 2, 3]]


def test_images_in_their_own_size_run_one_by_one_with_windows_of_their_own() -> None:
    grids = np.array([[1, 4, 4], [1, 4, 8]])
    pixels = np.arange(48, dtype=np.float32)[:, None]
    names = ("pixel_values", "patch_places", "patch_images", "patch_windows")
    session = Doubling(names)
    remembered = Remembered(session, Patches(merge=2, window=1))
    both = {"pixel_values": pixels, **patch_places(grids, 2, 1)}
    np.testing.assert_array_equal(remembered.run(both)["image_features"], 2 * pixels)
    for grid, given in zip(grids, session.given, strict=True):
        for name, expected in patch_places(grid[None], 2, 1).items():
            np.testing.assert_array_equal(given[name], expected)
    remembered.run({"pixel_values": pixels[16:], **patch_places(grids[1:], 2, 1)})
    assert len(session.given) == 2


def test_closing_forgets() -> None:
    session = Doubling()
    remembered = Remembered(session, Tiles())
    remembered.run(tiles(1))
    remembered.close()
    assert (remembered.kept_bytes, session.given) == (0, [])
