import numpy as np
import pytest
import torch

from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern, keep_highest

PATTERNS = ["1:2", "2:4", "1:4", "3:4", "4:8", "2:8", "5:16", "50%", "62.5%", "99%", "1%"]


@pytest.mark.parametrize("text", PATTERNS)
def test_spelling_round_trips(text: str) -> None:
    assert str(SparsityPattern.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "2:2", "4:2", "0:4", "2:", ":4", "2:4:8", "0%", "100%", "150%", "-5%", "50", "a:b", "2;4"]
)
def test_refuses_what_is_no_pattern(text: str) -> None:
    with pytest.raises(InputError, match="unknown sparsity"):
        SparsityPattern.parse(text)


@pytest.mark.parametrize("text", PATTERNS)
def test_mask_keeps_the_best_and_holds(text: str) -> None:
    pattern = SparsityPattern.parse(text)
    scores = np.random.default_rng(0).random((6, 64))
    keep = pattern.mask(scores)
    assert pattern.holds(np.where(keep, scores, 0))
    assert (~keep).sum(-1).tolist() == [pattern.zeros(64)] * 6
    groups = (
        (scores.reshape(6, -1, pattern.m), keep.reshape(6, -1, pattern.m)) if pattern.m else (scores[:, None], keep[:, None])
    )
    lowest_kept = np.where(groups[1], groups[0], np.inf).min(-1)
    highest_dropped = np.where(groups[1], -np.inf, groups[0]).max(-1)
    assert (lowest_kept > highest_dropped).all()


@pytest.mark.parametrize("text", PATTERNS)
def test_numpy_and_torch_agree_even_on_ties(text: str) -> None:
    scores = np.random.default_rng(1).integers(0, 3, (8, 64)).astype(np.float32)
    pattern = SparsityPattern.parse(text)
    np.testing.assert_array_equal(pattern.mask(scores), pattern.mask(torch.from_numpy(scores)).numpy())


@pytest.mark.parametrize("text", [text for text in PATTERNS if ":" in text])
def test_groups_are_masked_as_by_sorting(text: str) -> None:
    pattern, draw = SparsityPattern.parse(text), np.random.default_rng(2)
    scores = draw.integers(0, 4, (64, 240 * 4)).astype(np.float32)
    scores[draw.random(scores.shape) < 0.1] = np.nan
    scores[draw.random(scores.shape) < 0.1] = -np.inf
    for some in (scores, torch.from_numpy(scores), torch.from_numpy(scores.T.copy()).T):
        sorted_out = keep_highest(some.reshape(64, -1, pattern.m), pattern.n or 0)
        assert np.array_equal(pattern.mask(some), sorted_out.reshape(some.shape)), "ties keep the earlier, NaN comes last"


def test_ties_keep_the_earlier_column() -> None:
    assert SparsityPattern.parse("2:4").mask(np.ones((1, 4))).tolist() == [[True, True, False, False]]


def test_one_weight_too_many_breaks_it() -> None:
    pattern, weight = SparsityPattern.parse("2:4"), np.tile([1.0, 0, 0, 2.0], (3, 4))
    assert pattern.holds(weight)
    weight[1, 5] = 1e-7
    assert not pattern.holds(weight)
    assert np.argwhere(pattern.violations(weight == 0)).tolist() == [[1, 1]]


def test_rows_that_do_not_fall_into_groups_never_hold() -> None:
    assert not SparsityPattern.parse("2:4").holds(np.zeros((2, 6)))
    assert SparsityPattern.parse("50%").holds(np.zeros((2, 6)))


def test_density() -> None:
    assert SparsityPattern.parse("2:4").density == 0.5
    assert SparsityPattern.parse("70%").density == pytest.approx(0.3)
