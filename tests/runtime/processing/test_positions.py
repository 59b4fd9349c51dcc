"""Positions of tokens and patches are those that transformers computes, for grids of every kind."""

import numpy as np
import pytest
import torch
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from tests import pico
from vlmc.runtime.errors import InputError
from vlmc.runtime.processing.patches import patch_places
from vlmc.runtime.processing.positions import m_rope, sequential

GRIDS = np.array([[1, 4, 6], [1, 2, 2], [2, 10, 4], [1, 6, 14]])
IMAGE = 9


def test_padding_counts_for_nothing() -> None:
    np.testing.assert_array_equal(sequential(np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]])), [[0, 1, 2], [0, 1, 1], [0, 0, 1]])


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Two rows with two images each, one of them filled up on the right."""
    counts = GRIDS.prod(1) // 4
    first = [1, 1, *[IMAGE] * counts[0], 2, *[IMAGE] * counts[1]]
    second = [*[IMAGE] * counts[2], 3, *[IMAGE] * counts[3], 1, 2, 3]
    ids = np.zeros((2, max(len(first), len(second))), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate((first, second)):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    return ids, mask


def test_m_rope_is_that_of_transformers() -> None:
    model = pico.FAMILIES["qwen2_5_vl"].model()
    ids, mask = rows()
    expected, _ = model.model.get_rope_index(  # type: ignore[operator, union-attr]
        torch.from_numpy(ids),
        torch.from_numpy((ids == IMAGE).astype(np.int64)),
        image_grid_thw=torch.from_numpy(GRIDS),
        attention_mask=torch.from_numpy(mask),
    )
    np.testing.assert_array_equal(m_rope(ids == IMAGE, mask, GRIDS, 2), expected.numpy())


def test_images_that_do_not_fit_their_tokens_are_told() -> None:
    ids, mask = rows()
    with pytest.raises(InputError, match="the processor and the graphs belong to different models"):
        m_rope(ids == IMAGE, mask, GRIDS[:3], 2)
    with pytest.raises(InputError, match="the processor and the graphs belong to different models"):
        m_rope(ids == IMAGE, mask, GRIDS + 2, 2)


def test_patches_are_counted_as_in_transformers() -> None:
    found = patch_places(GRIDS, merge=2, window=None)
    expected = get_vision_position_ids(torch.from_numpy(GRIDS), 2)
    np.testing.assert_array_equal(found["patch_places"], expected.numpy())
    frames = [int(grid[1] * grid[2]) for grid in GRIDS for _ in range(grid[0])]
    np.testing.assert_array_equal(found["patch_images"], np.repeat(np.arange(len(frames)), frames))
    np.testing.assert_array_equal(found["patch_windows"], found["patch_images"])


@pytest.mark.parametrize("window", [1, 2, 3])
def test_windows_hold_the_tokens_that_transformers_puts_together(window: int) -> None:
    """transformers sorts tokens by window and says where each window begins; here each patch is given a number."""
    order, starts = get_vision_window_index(
        torch.from_numpy(GRIDS), spatial_merge_size=2, window_size=window * 16, patch_size=8
    )
    windows = patch_places(GRIDS, merge=2, window=window)["patch_windows"].reshape(-1, 4)
    assert (windows == windows[:, :1]).all(), "the patches of a token lie in one window"
    sizes = np.diff(starts.numpy()) // 4
    expected = np.split(order.numpy(), np.cumsum(sizes)[:-1])
    found = [np.flatnonzero(windows[:, 0] == number) for number in np.unique(windows)]
    assert sorted(map(tuple, expected)) == sorted(map(tuple, found))
