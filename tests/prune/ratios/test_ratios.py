"""Layer-wise ratios: the scores by hand, the fractions by what they promise, the gradient's estimate by a known gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.prune.ratios.ecoflap import ecoflap, importance, zeroth_order
from vlmc.toolchain.prune.ratios.owl import outliers, owl
from vlmc.toolchain.prune.ratios.sharing import patterns, percentage, sizes

Share = Callable[[dict[str, float], dict[str, int], float], dict[str, float]]


def some(count: int, seed: int) -> tuple[dict[str, float], dict[str, int]]:
    """Scores of very different sizes, and numbers of weights."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, generator=draw).exp().tolist()
    numbers = torch.randint(1_000, 100_000, (count,), generator=draw).tolist()
    names = [f"block {number}" for number in range(count)]
    return dict(zip(names, scores, strict=True)), dict(zip(names, numbers, strict=True))


def mean(fractions: dict[str, float], numbers: dict[str, int]) -> float:
    return sum(fractions[name] * numbers[name] for name in numbers) / sum(numbers.values())


@pytest.mark.parametrize("target", [0.03, 0.5, 0.7, 0.97])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("share", "span"), [(owl, (0.08, 0.08)), (ecoflap, (1.0, 0.1))])
def test_the_mean_is_the_target_within_the_caps(share: Share, span: tuple[float, float], seed: int, target: float) -> None:
    scores, numbers = some(12, seed)
    fractions = share(scores, numbers, target)
    assert mean(fractions, numbers) == pytest.approx(target, abs=1e-12)
    assert all(max(target - span[0], 0) <= one <= min(target + span[1], 1) for one in fractions.values())
    assert len(set(fractions.values())) > 1


def test_owl_gives_more_outliers_fewer_zeros() -> None:
    scores, numbers = some(12, 0)
    fractions = owl(scores, numbers, 0.6)
    ordered = [fractions[name] for name in sorted(scores, key=lambda name: scores[name])]
    assert ordered == sorted(ordered, reverse=True)


def test_owl_by_hand() -> None:
    """Drops of 0, 0.04, 0.12 and 0.16 from 0.6 and their mean."""
    fractions = owl({"a": 0.01, "b": 0.02, "c": 0.04, "d": 0.05}, dict.fromkeys("abcd", 100), 0.6)
    assert fractions == pytest.approx({"a": 0.68, "b": 0.64, "c": 0.56, "d": 0.52})


def test_owl_holds_a_block_far_off_at_its_bound() -> None:
    fractions = owl({"a": 0.01, "b": 0.01, "c": 0.01, "d": 0.05}, dict.fromkeys("abcd", 100), 0.6)
    assert fractions == pytest.approx({"a": 0.6 + 0.08 / 3, "b": 0.6 + 0.08 / 3, "c": 0.6 + 0.08 / 3, "d": 0.52})


def test_ecoflap_by_hand() -> None:
    """Of 600 weights 300 stay: 40, 80 and 120 for the cap of 0.6, and 60 more by the scores."""
    numbers = {"a": 100, "b": 200, "c": 300}
    assert ecoflap({"a": 1, "b": 2, "c": 3}, numbers, 0.5) == pytest.approx(dict.fromkeys("abc", 0.5))
    assert ecoflap({"a": 0, "b": 2, "c": 1}, numbers, 0.5) == pytest.approx({"a": 0.6, "b": 0.4, "c": 1 - 140 / 300})
    assert ecoflap({"a": 0, "b": 0, "c": 0}, numbers, 0.5) == dict.fromkeys("abc", 0.5)


def test_ecoflap_passes_on_what_a_block_cannot_take() -> None:
    """45, 90 and 135 stay for the cap of 0.55, and 60 more; block a takes 55 of them and is dense."""
    fractions = ecoflap({"a": 60, "b": 1, "c": 1}, {"a": 100, "b": 200, "c": 300}, 0.45)
    assert fractions == pytest.approx({"a": 0.0, "b": 1 - 92.5 / 200, "c": 1 - 137.5 / 300})


def test_equal_scores_give_equal_fractions() -> None:
    _, numbers = some(5, 0)
    assert owl(dict.fromkeys(numbers, 0.1), numbers, 0.6) == pytest.approx(dict.fromkeys(numbers, 0.6))


def test_outliers_are_counted_over_the_whole_block() -> None:
    """Scores 1 (ten), 2 x 4 = 8 and 100: the mean is 118 / 12, five times which only 100 is above."""
    first, second = nn.Parameter(torch.ones(2, 5)), nn.Parameter(torch.tensor([[-2.0, 100.0]]))
    layers = [(first, torch.ones(5)), (second, torch.tensor([16.0, 1.0]))]
    assert outliers(layers) == pytest.approx(1 / 12)
    assert outliers(layers[:1]) == 0
    assert outliers([]) == 0


def test_patterns_have_the_zeros_of_the_fractions() -> None:
    shapes = {"one": {"a": (64, 64), "b": (64, 172)}, "two": {"c": (96, 64), "d": (172, 64)}, "three": {"e": (50, 333)}}
    fractions = {"one": 0.4137, "two": 0.61, "three": 0.5555}
    found = patterns(fractions, shapes)
    layers = {name: shape for group in shapes.values() for name, shape in group.items()}
    zeros = sum(rows * found[name].zeros(columns) for name, (rows, columns) in layers.items())
    asked = sum(fractions[group] * number for group, number in sizes(shapes).items())
    assert abs(zeros - asked) <= 25, "half a column of the last layer"
    for group, inside in shapes.items():
        for name, (rows, columns) in inside.items():
            assert abs(found[name].zeros(columns) / columns - fractions[group]) < (1 + 96 / rows) / columns


@pytest.mark.parametrize("columns", [3, 64, 172, 11008, 999_999])
def test_a_layers_pattern_survives_its_text(columns: int) -> None:
    for fraction in (0.0, 0.001, 1 / 3, 0.5, 0.61803, 0.99999, 1.0):
        pattern = patterns({"all": fraction}, {"all": {"layer": (8, columns)}})["layer"]
        again = SparsityPattern.parse(str(pattern))
        assert again.zeros(columns) == pattern.zeros(columns) == min(max(round(fraction * columns), 1), columns - 1)
        assert again.fraction == pytest.approx(pattern.fraction, abs=1e-12)


@pytest.mark.parametrize("ratios", ["owl", "ecoflap"])
def test_a_fixed_pattern_cannot_be_shared_out(ratios: str) -> None:
    with pytest.raises(
        InputError, match=f"--ratios {ratios} shares out a percentage such as 50%; 2:4 is the same everywhere"
    ):
        percentage(SparsityPattern(n=2, m=4), ratios)
    assert percentage(SparsityPattern.parse("62.5%"), ratios) == 0.625


class Quadratic(nn.Module):
    """Losses c_b (w - a)^2 / 2 over two layers, one for each batch; the gradient is c_b (w - a)."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.one, self.two = nn.Linear(8, 6, bias=False, dtype=dtype), nn.Linear(6, 10, bias=False, dtype=dtype)
        for layer in (self.one, self.two):
            layer.weight.data = torch.randn(layer.weight.shape, generator=draw, dtype=dtype)
        self.goals = [3 * torch.randn(layer.weight.shape, generator=draw, dtype=dtype) for layer in (self.one, self.two)]

    def gradients(self, batch: int) -> list[Tensor]:
        pairs = zip((self.one, self.two), self.goals, strict=True)
        return [(batch + 1) * (layer.weight.detach() - goal) for layer, goal in pairs]

    def loss(self, batch: int) -> float:
        return sum(float(gradient.double().square().sum()) / (batch + 1) / 2 for gradient in self.gradients(batch))

    def blocks(self) -> dict[str, list[Tensor]]:
        return {"one": [self.one.weight], "two": [self.two.weight], "both": [self.one.weight, self.two.weight]}


@pytest.mark.integration
def test_the_estimate_converges_to_the_gradients_norm() -> None:
    model = Quadratic()
    found = zeroth_order(model.blocks(), model.loss, batches=2, seed=0, draws=400)
    one, two = (float(gradient.norm()) * 1.5 for gradient in model.gradients(0))
    assert found == pytest.approx({"one": one, "two": two, "both": (one**2 + two**2) ** 0.5}, rel=0.06)
    assert zeroth_order(model.blocks(), model.loss, 2, seed=0) == zeroth_order(model.blocks(), model.loss, 2, seed=0)
    assert zeroth_order(model.blocks(), model.loss, 2, seed=0) != zeroth_order(model.blocks(), model.loss, 2, seed=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    model = Quadratic(dtype)
    before = [weight.clone() for weight in model.parameters()]
    pointers = [weight.data_ptr() for weight in model.parameters()]
    seen = set()

    def loss(batch: int) -> float:
        seen.add(tuple(value for weight in model.parameters() for value in weight.detach().flatten().tolist()))
        return model.loss(batch)

    assert all(norm > 0 for norm in zeroth_order(model.blocks(), loss, batches=3, seed=0, draws=2).values())
    assert len(seen) == 3 * 6 * 2, "every pass is at a place of its own"
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert pointers == [weight.data_ptr() for weight in model.parameters()]


def test_the_weights_come_back_when_the_loss_fails() -> None:
    model = Quadratic()
    before = [weight.clone() for weight in model.parameters()]

    def loss(batch: int) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zeroth_order(model.blocks(), loss, batches=1, seed=0)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_losses_that_are_no_numbers_name_the_block() -> None:
    model = Quadratic()
    with pytest.raises(InputError, match=r"NaN or infinite losses near the weights of one\b"):
        zeroth_order(model.blocks(), lambda batch: float("nan"), batches=1, seed=0)


def test_importance_is_the_weights_sum_times_the_gradients_norm() -> None:
    weights = [nn.Parameter(torch.tensor([[1.0, -2.0]])), nn.Parameter(torch.tensor([[-0.5]]))]
    assert importance(weights, 3.0) == pytest.approx(10.5)
