"""The learned positions that a patch stands between are those of bilinear resampling."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from vlmc.runtime.processing.patches import grid_neighbours

SIDE = 5


def test_shares_of_neighbours_resample_the_grid() -> None:
    table = torch.randn(SIDE * SIDE, 3)
    found = grid_neighbours(np.array([[1, 4, 6], [2, 8, 2]]), merge=1, side=SIDE)
    neighbours, shares = (torch.from_numpy(found[name]) for name in ("patch_neighbours", "patch_shares"))
    made = (table[neighbours] * shares[..., None]).sum(1)
    grid = table.T.reshape(1, 3, SIDE, SIDE)
    expected = [interpolate(grid, size, mode="bilinear", align_corners=True)[0].flatten(1).T for size in ((4, 6), (8, 2))]
    torch.testing.assert_close(made, torch.cat([expected[0], expected[1], expected[1]]), atol=1e-5, rtol=0)


def test_patches_of_a_token_follow_each_other() -> None:
    one = grid_neighbours(np.array([[1, 4, 4]]), merge=2, side=4)
    assert one["patch_neighbours"][:, 0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert one["patch_shares"][:, 0].tolist() == [1.0] * 16


def test_an_image_of_one_row_takes_the_first() -> None:
    one = grid_neighbours(np.array([[1, 1, 2]]), merge=1, side=4)
    assert one["patch_neighbours"][:, 0].tolist() == [0, 3]
