"""Token weights enter every statistic, and atv chooses as its paper says."""

import math

import pytest
import torch
from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.calibration.tokens import Tokens, atv, text
from vlmc.toolchain.models.streaming.stack import Passed
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.prune.refinements.refit import with_refit

VISUAL = torch.tensor([False, True, True, False, True, False, False])


def gathered(x_LI: Tensor, weights_L: Tensor | None = None) -> Statistics:
    statistics = Statistics(x_LI.shape[1], Need.HESSIAN, torch.device("cpu"))
    statistics.add(x_LI, "layer", weights_L)
    return statistics


def turned(*degrees: float) -> Passed:
    """What goes into a block and what comes out: each token turned by so many degrees, and stretched."""
    radians = torch.tensor([math.radians(one) for one in degrees])
    before_TD = torch.tensor([1.0, 0.0]).repeat(len(degrees), 1)
    return Passed(before_TD, 3 * torch.stack([radians.cos(), radians.sin()], 1))


def test_weights_enter_norms_and_hessian() -> None:
    found = gathered(torch.tensor([[1.0, 2.0], [3.0, -1.0], [5.0, 7.0]]), torch.tensor([1.0, 0.5, 0.0]))
    assert found.hessian_II is not None
    expected_II = torch.tensor([[1 + 4.5, 2 - 1.5], [2 - 1.5, 4 + 0.5]])
    torch.testing.assert_close(found.hessian_II, expected_II)
    torch.testing.assert_close(found.squares_I, expected_II.diagonal())


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("name", PRUNERS)
def test_weight_zero_is_as_good_as_absent(name: str, refit: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x_LI, weight_OI = torch.randn(300, 32, generator=draw), torch.randn(16, 32, generator=draw)
    x_LI[::3] *= torch.logspace(-1, 1, 32)
    counts_L = torch.arange(300) % 3 != 0
    pruner = with_refit(PRUNERS[name]) if refit else PRUNERS[name]
    weighted, subset, everything = (
        pruner.prune(weight_OI, statistics, SparsityPattern(n=2, m=4))
        for statistics in (gathered(x_LI, counts_L.float()), gathered(x_LI[counts_L]), gathered(x_LI))
    )
    assert torch.equal(weighted[1], subset[1])
    torch.testing.assert_close(weighted[0], subset[0], rtol=1e-3, atol=1e-4)
    if pruner.need is not Need.NOTHING:
        assert not torch.allclose(weighted[0], everything[0]), "the test would pass if weights were ignored"


def test_text_drops_every_visual_token() -> None:
    assert text(VISUAL, lambda: turned(*range(7))).tolist() == [1, 0, 0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("degrees", "kept"),
    [
        ((60, 0, 90), [1, 0, 1]),  # drifts 0.5, 0, 1: their mean, 0.5, of 4 text tokens is 2
        ((60, 0, 45), [1, 0, 0]),  # 0.5, 0, 0.293: 0.264 of 4 is 1.06, rounded 1
        ((60, 0, 75), [1, 0, 1]),  # 0.5, 0, 0.741: 0.414 of 4 is 1.65, rounded 2
        ((0, 0, 0), [0, 0, 0]),  # nothing turned
        ((180, 170, 160), [1, 1, 1]),  # 1.97 on the average, capped at 1: 4, but there are only 3
    ],
)
def test_atv_keeps_the_visual_tokens_that_turn_most(degrees: tuple[int, int, int], kept: list[int]) -> None:
    first, second, third = degrees
    found_T = atv(VISUAL, lambda: turned(170, first, second, 170, third, 170, 170))
    assert found_T[VISUAL].tolist() == kept
    assert found_T[~VISUAL].tolist() == [1, 1, 1, 1]


def test_atv_leaves_broken_numbers_to_the_statistics() -> None:
    passed = turned(*range(7))
    passed.after[1] = float("nan")
    assert set(atv(VISUAL, lambda: passed).tolist()) <= {0.0, 1.0}


def test_a_policy_works_sample_by_sample() -> None:
    assert Tokens.choose("all", [VISUAL], ["a"]) is None
    tokens = Tokens.choose("text", [VISUAL, ~VISUAL], ["a", "b"])
    assert tokens is not None
    assert torch.equal(tokens.weights(1, lambda: turned(*range(7))), VISUAL.float())


@pytest.mark.parametrize("policy", ["text", "atv"])
@pytest.mark.parametrize(("visual", "what"), [(VISUAL & False, "visual"), (VISUAL | True, "text")])
def test_a_sample_of_one_kind_only_is_refused(policy: str, visual: Tensor, what: str) -> None:
    with pytest.raises(InputError, match=f"--tokens {policy}: calibration sample seven has no {what} token"):
        Tokens.choose(policy, [VISUAL, visual], ["one", "seven"])
    assert Tokens.choose("all", [visual], ["seven"]) is None
