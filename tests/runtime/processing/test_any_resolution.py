"""LLaVA-NeXT's features are arranged as transformers arranges them, for images of all shapes."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlavaNextModel
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from vlmc.runtime.deployment import AnyRes
from vlmc.runtime.processing.any_resolution import tile_inputs

TILE, SIDE = 32, 4
CANVASES = ((32, 64), (64, 32), (64, 64), (32, 96), (96, 32))
LAYOUT = AnyRes(tile=TILE, side=SIDE, canvases=CANVASES)
SIZES = ((32, 32), (20, 110), (110, 20), (36, 70), (97, 31), (64, 64), (500, 333), (1, 30))
"""Heights and widths."""


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_features_are_where_transformers_puts_them(size: tuple[int, int]) -> None:
    sizes = [size, (40, 90)]
    counts = [image_size_to_num_patches(list(one), [list(canvas) for canvas in CANVASES], TILE) for one in sizes]
    pixels = np.zeros((2, max(counts), 3, 2, 2), np.float32)
    for image, count in enumerate(counts):
        pixels[image, :count] = image + 1
    made = tile_inputs({"image_sizes": np.array(sizes), "pixel_values": pixels}, LAYOUT)
    assert made["pixel_values"][:, 0, 0, 0].tolist() == [1.0] * counts[0] + [2.0] * counts[1]

    features, newline = torch.randn(sum(counts), SIDE * SIDE, 5), torch.randn(5)
    found = torch.cat([features.flatten(0, 1), newline[None]])[made["feature_places"]]
    vision = SimpleNamespace(image_size=TILE, patch_size=TILE // SIDE)
    config = SimpleNamespace(vision_config=vision, image_grid_pinpoints=[list(canvas) for canvas in CANVASES])
    model: Any = SimpleNamespace(config=config)
    expected, _ = LlavaNextModel.pack_image_features(
        model, torch.split(features, counts), torch.tensor(sizes), "default", newline
    )
    torch.testing.assert_close(found, torch.cat(list(expected)), rtol=0, atol=0)
