"""Block reconstruction on a block of two layers with a GELU between them."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.prune.refinements import reconstruct as module
from vlmc.toolchain.prune.refinements.reconstruct import Objective, Reconstruction, reconstruct


class Block(nn.Module):
    """What a transformer's block has: a norm, biases, layers whose weights may be pruned, one that stays dense, a sum."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)
        self.dense, self.unused = nn.Linear(32, 32), nn.Linear(32, 32)
        draw = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
        self.to(dtype)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = hidden_BTD + self.dense(self.down(nn.functional.gelu(self.up(self.norm(hidden_BTD)))))
        return out_BTD


def inputs(count: int, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Samples of unequal lengths."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 5 + number % 4, 32, generator=draw).to(dtype) for number in range(count)]


def pruned(block: Block, dtype: torch.dtype = torch.float32) -> tuple[Block, dict[str, Tensor]]:
    """The block with two layers pruned to 2:4 by magnitude, and their masks."""
    sparse, masks = Block(dtype), {}
    for name in ("up", "down", "unused"):
        layer = sparse.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        statistics = Statistics(layer.in_features, Need.NOTHING, torch.device("cpu"))
        weight_OI, masks[name], _ = PRUNERS["magnitude"].prune(layer.weight.detach(), statistics, SparsityPattern(n=2, m=4))
        layer.weight.data.copy_(weight_OI)
    return sparse, masks


def objective(sparse: Block, dense: Block, samples: Sequence[Tensor]) -> Objective:
    with torch.no_grad():
        targets = [dense(sample) for sample in samples]
    return Objective(len(samples), lambda sample: sparse(samples[sample]), lambda sample: targets[sample])


def trained(
    seed: int = 0, epochs: int = 6, dtype: torch.dtype = torch.float32
) -> tuple[Block, dict[str, Tensor], Reconstruction]:
    dense = Block(dtype)
    sparse, masks = pruned(dense, dtype)
    return sparse, masks, reconstruct(sparse, masks, objective(sparse, dense, inputs(32, 1, dtype)), epochs, seed)


@pytest.mark.integration
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_error_falls_and_the_masks_hold(dtype: torch.dtype) -> None:
    sparse, masks, found = trained(dtype=dtype)
    dense, (start, _) = Block(dtype), pruned(Block(dtype), dtype)
    assert found.after < 0.5 * found.before
    assert objective(sparse, dense, inputs(32, 1, dtype)).error() == pytest.approx(found.after, rel=1e-6), (
        "what is told is what is"
    )
    assert objective(start, dense, inputs(32, 1, dtype)).error() == pytest.approx(found.before, rel=1e-6)
    unseen = inputs(16, 2, dtype)
    assert objective(sparse, dense, unseen).error() < 0.7 * objective(start, dense, unseen).error()
    for name in ("up", "down"):
        weight_OI, mask_OI = sparse.get_parameter(f"{name}.weight").detach(), masks[name]
        assert weight_OI.dtype == dtype
        assert torch.equal(weight_OI != 0, mask_OI)
        assert not torch.signbit(weight_OI[~mask_OI]).any(), "a pruned weight must be +0.0"
        assert not torch.equal(weight_OI, start.get_parameter(f"{name}.weight"))


@pytest.mark.integration
def test_nothing_else_changes() -> None:
    sparse, _, _ = trained()
    start, _ = pruned(Block())
    for name, parameter in sparse.named_parameters():
        if name not in ("up.weight", "down.weight"):
            assert torch.equal(parameter, start.get_parameter(name)), name
        assert parameter.requires_grad
        assert parameter.grad is None


def test_gradients_flow_to_the_trained_weights_alone_and_rates_fall_along_a_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = Block()
    sparse, masks = pruned(dense)
    rates: list[float] = []

    def step(layers: object, optimizer: object, rate: float) -> None:
        rates.append(rate)
        reached = {name for name, parameter in sparse.named_parameters() if parameter.grad is not None}
        assert reached == {"up.weight", "down.weight"}, "unused is in no output, the others are not trained"

    monkeypatch.setattr(module, "_step", step)
    reconstruct(sparse, masks, objective(sparse, dense, inputs(12, 1)), 2, 0)
    assert rates == pytest.approx([2e-2, 2e-2 * (0.5 + 0.125**0.5), 1e-2, 2e-2 * (0.5 - 0.125**0.5)])


def test_flags_of_parameters_come_back_though_the_block_fails() -> None:
    sparse, masks = pruned(Block())
    sparse.norm.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in sparse.parameters()]
    calls: list[int] = []

    def run(sample: int) -> Tensor:
        calls.append(sample)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return torch.ones(1, 2)

    with pytest.raises(KeyboardInterrupt):
        reconstruct(sparse, masks, Objective(1, run, lambda sample: torch.zeros(1, 2)), 1, 0)
    assert [parameter.requires_grad for parameter in sparse.parameters()] == flags


@pytest.mark.integration
def test_the_seed_decides() -> None:
    one, again, other = (trained(seed, epochs=2)[0].up.weight for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_it_trains_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert trained(epochs=1)[2].epoch == 1
        assert not torch.is_grad_enabled()


def test_weights_that_get_worse_are_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RATE", 1e3)
    sparse, _, found = trained(epochs=2)
    assert (found.after, found.epoch) == (found.before, 0)
    assert all(torch.equal(*pair) for pair in zip(sparse.parameters(), pruned(Block())[0].parameters(), strict=True))


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that turns away after the second epoch's evaluation: what was best then must come back."""
    sparse, masks = pruned(Block())
    samples, dense = inputs(8, 1), Block()
    weights: list[Tensor] = []
    errors = iter([1.0, 0.8, 0.5, 0.7, 0.6])

    def error(self: Objective) -> float:
        weights.append(sparse.up.weight.detach().clone())
        return next(errors)

    monkeypatch.setattr(Objective, "error", error)
    assert reconstruct(sparse, masks, objective(sparse, dense, samples), 4, 0) == Reconstruction(1.0, 0.5, 2)
    assert torch.equal(sparse.up.weight, weights[2])
    assert len({float(weight.sum()) for weight in weights}) == 5


def test_a_block_that_is_right_is_left_alone() -> None:
    dense = Block()
    keep = {"up": torch.ones(64, 32, dtype=torch.bool)}
    assert reconstruct(dense, keep, objective(dense, Block(), inputs(4, 1)), 3, 0) == Reconstruction(0.0, 0.0, 0)


def test_one_step_is_adams_on_the_mean_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step of Adam goes by the rate against the gradient's sign, here of the plain mean squared error."""
    monkeypatch.setattr(module, "BATCH", 4)
    dense = Block()
    sparse, masks = pruned(dense)
    start_OI = sparse.up.weight.detach().clone()
    samples = inputs(4, 1)
    loss = sum(((sparse(sample) - dense(sample).detach()) ** 2).mean() for sample in samples)
    assert isinstance(loss, Tensor)
    (gradient_OI,) = torch.autograd.grad(loss, [sparse.up.weight])
    rate = 2e-2 * float(start_OI[masks["up"]].square().mean().sqrt())
    reconstruct(sparse, masks, objective(sparse, dense, samples), 1, 0)
    expected_OI = start_OI - rate * gradient_OI.sign() * masks["up"]
    torch.testing.assert_close(sparse.up.weight.detach(), expected_OI, rtol=1e-3, atol=1e-5)
