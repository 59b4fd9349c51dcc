"""Attention masks count a row's own tokens, wherever the row is padded, and are transformers' where nothing is."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from vlmc.toolchain.deploy.masks import FULL, SLIDING, attention_masks

WINDOW = 3
PLAIN: Any = SimpleNamespace(sliding_window=None)
MIXED: Any = SimpleNamespace(sliding_window=WINDOW, layer_types=[SLIDING, FULL])
ALL: Any = SimpleNamespace(sliding_window=WINDOW)


def seen(mask: Tensor, row: int = 0) -> list[str]:
    """Show a row's mask: a line for each new token, `x` where it looks."""
    return ["".join("x" if value == 0 else "." for value in line) for line in mask[row, 0].tolist()]


def masks(config: Any, mask: list[list[int]], new: int, **more: Any) -> Any:
    return attention_masks(config, torch.tensor(mask), torch.zeros(len(mask), new, 2), **more)


def test_tokens_see_those_before_them_and_no_padding() -> None:
    found = masks(PLAIN, [[1, 1, 1, 1], [1, 1, 0, 1]], 2)
    assert found.shape == (2, 1, 2, 4)
    assert seen(found) == ["xxx.", "xxxx"]
    assert seen(found, 1) == ["xx..", "xx.x"]


def test_a_window_counts_the_tokens_of_the_row() -> None:
    """The last token of the padded row is its fourth, wherever it stands in the cache."""
    found = masks(ALL, [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 1]], 1)
    assert seen(found) == ["...xxx"]
    assert seen(found, 1) == [".xx..x"]
    left = masks(ALL, [[0, 0, 1, 1, 1, 1]], 1)
    assert seen(left) == ["...xxx"]


BLOCKS = torch.tensor([[-1, 0, 0, 0, 0, -1]])


def test_a_block_is_seen_in_both_directions_as_far_as_a_window_reaches() -> None:
    found = masks(MIXED, [[1] * 6], 6, blocks_BS=BLOCKS)
    assert seen(found[FULL]) == ["x.....", "xxxxx.", "xxxxx.", "xxxxx.", "xxxxx.", "xxxxxx"]
    assert seen(found[SLIDING]) == ["x.....", "xxxxx.", "xxxxx.", ".xxxx.", "..xxx.", "...xxx"]


def test_a_whole_block_is_seen_beyond_a_window() -> None:
    found = masks(MIXED, [[1] * 6], 6, blocks_BS=BLOCKS, whole_blocks=True)
    assert seen(found[SLIDING]) == ["x.....", "xxxxx.", "xxxxx.", ".xxxx.", ".xxxx.", "...xxx"]


@pytest.mark.parametrize("past", [1, 3])
def test_a_new_token_is_in_no_block_of_the_past(past: int) -> None:
    found = masks(PLAIN, [[1] * (past + 2)], 2, blocks_BS=torch.tensor([[-1, -1]]))
    assert seen(found) == ["x" * (past + 1) + ".", "x" * (past + 2)]


def test_two_blocks_do_not_see_each_other_ahead() -> None:
    found = masks(PLAIN, [[1] * 4], 4, blocks_BS=torch.tensor([[0, 0, 1, 1]]))
    assert seen(found) == ["xx..", "xx..", "xxxx", "xxxx"]


@pytest.mark.parametrize("config", [PLAIN, MIXED, ALL])
def test_in_place_tokens_see_what_they_see_when_they_come_last(config: Any) -> None:
    """Two rows of 2 and 4 tokens get 2 more, in buffers of 8 columns; concatenated, the short row has a gap."""
    gap = masks(config, [[1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]], 2, blocks_BS=torch.tensor([[0, 0], [-1, -1]]))
    given = {"blocks_BS": torch.tensor([[0, 0], [-1, -1]]), "write_B": torch.tensor([2, 4])}
    found = masks(config, [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]], 2, **given)
    for one, other in zip(*((it.values() if isinstance(it, dict) else [it]) for it in (gap, found)), strict=True):
        assert [line[:2] + line[4:] + "...." for line in seen(one)] == seen(other)
        assert [line + ".." for line in seen(one, 1)] == seen(other, 1)
