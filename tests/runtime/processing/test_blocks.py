"""Which tokens of a prompt see each other in both directions."""

import numpy as np

from tests.runtime.test_deployment import FIXED
from vlmc.runtime.processing.blocks import blocks

IDS = np.array([[1, 4, 4, 5, 4, 6], [4, 4, 5, 6, 0, 0]])
"""4 is an image's token."""


def test_nothing_without_a_prefix_mask() -> None:
    assert blocks(IDS, FIXED) == {}


def test_the_whole_prompt_is_one_block() -> None:
    found = blocks(IDS, FIXED.model_copy(update={"prefix_mask": "prompt"}))
    assert found["block_sequence_ids"].tolist() == [[0] * 6] * 2


def test_each_image_is_a_block_of_its_own() -> None:
    found = blocks(IDS, FIXED.model_copy(update={"prefix_mask": "images"}))
    assert found["block_sequence_ids"].tolist() == [[-1, 0, 0, -1, 1, -1], [0, 0, -1, -1, -1, -1]]
