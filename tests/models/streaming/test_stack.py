"""A stack runs one block as the whole model would: glue between blocks included."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.streaming.activations import Activations
from vlmc.toolchain.models.streaming.stack import Passed, Stack


class Block(nn.Module):
    """Gives its hidden states and a bias, as T5's blocks do."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Linear(8, 8)

    def forward(self, hidden_states: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        bias = self.inner.bias if bias is None else bias
        return torch.tanh(self.inner(hidden_states)) + bias, bias


class Owner(nn.Module):
    """Adds something after some blocks, in place, and hands the first block's bias to all others."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(seed) for seed in range(4))
        self.runs = 0

    def forward(self, states: Tensor, *, extra: Tensor) -> Tensor:
        self.runs += 1
        hidden, bias = states, None
        for number, layer in enumerate(self.layers):
            hidden, bias = layer(hidden, bias=bias)
            if number % 2 == 0:
                hidden += extra
        return hidden


class Model(nn.Module):
    """An owner with something around it."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(8, 8)
        self.tower = Owner()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.tower(self.before(x), extra=x * 2)
        return found + 1


def stack_of(model: Model) -> Stack:
    return Stack(model, [(f"tower.layers.{name}", block) for name, block in model.tower.layers.named_children()])


def passed_by_all(model: Model, x: Tensor) -> list[Passed]:
    """What the blocks take and give in an ordinary run."""
    found: list[Passed] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object], output: tuple[Tensor, Tensor]) -> None:
        found.append(Passed(args[0].clone(), tuple(one.clone() for one in output)))

    handles = [block.register_forward_hook(note, with_kwargs=True) for block in model.tower.layers]
    model(x)
    for handle in handles:
        handle.remove()
    return found


@torch.no_grad()
def test_each_block_runs_as_in_the_whole_model() -> None:
    model, x = Model(), torch.randn(1, 3, 8)
    expected, stack = passed_by_all(model, x), stack_of(model)
    call = stack.record(lambda: model(x))
    previous = None
    for number, block in enumerate(expected):
        with stack.at(number) as through:
            for _ in range(2):  # the owner writes into what it gets: a second run must not see that
                passed = through(call, previous)
                assert torch.equal(passed.before, block.before)
                assert all(torch.equal(one, other) for one, other in zip(passed.output, block.output, strict=True))
        previous = passed.output
    assert torch.equal(model(x), Model.forward(model, x))
    assert all("forward" not in vars(block) for block in model.tower.layers)


@torch.no_grad()
def test_recording_ends_before_the_tower_runs() -> None:
    model = Model()
    args, kwargs = stack_of(model).record(lambda: model(torch.ones(1, 2, 8)))
    assert torch.equal(args[0], model.before(torch.ones(1, 2, 8)))
    assert torch.equal(kwargs["extra"], torch.full((1, 2, 8), 2.0))
    assert model.tower.runs == 0


def test_gradients_reach_the_block() -> None:
    model, x = Model(), torch.randn(1, 3, 8)
    stack = stack_of(model)
    call = stack.record(lambda: model(x))
    with stack.at(0) as through:
        through(call, None).after.sum().backward()
    assert model.tower.layers[0].inner.weight.grad is not None


def test_a_model_that_never_gets_there_is_noticed() -> None:
    with pytest.raises(AssertionError, match="never reached the tower"):
        stack_of(Model()).record(lambda: None)


@pytest.mark.parametrize("spill", [False, True])
def test_activations_come_back_as_they_went(tmp_path: Path, spill: bool) -> None:
    store = Activations(torch.device("cpu"), tmp_path / "spilled" if spill else None)
    x = torch.randn(2, 3)
    tree = ((x, None), {"mask": torch.tensor([True, False]), "twice": x, "part": x[:, 1], "flag": False, "none": None})
    store.put(1, tree)
    store.put(2, (torch.zeros(1),))
    store.put(2, (torch.ones(1),))
    (first, nothing), rest = store.get(1)
    assert torch.equal(first, x)
    assert nothing is None
    assert (rest["mask"].tolist(), rest["flag"], rest["none"]) == ([True, False], False, None)
    assert torch.equal(rest["twice"], x)
    assert torch.equal(rest["part"], x[:, 1])
    assert store.get(2)[0].item() == 1
    assert (tmp_path / "spilled").exists() == spill


def test_a_model_that_cannot_be_run_on_its_inputs_is_one_line() -> None:
    model = Model()
    stack = Stack(model, [(f"tower.layers.{number}", layer) for number, layer in enumerate(model.tower.layers)])
    with pytest.raises(InputError, match=r"the model cannot be run \(RuntimeError: .*\): its configuration, processor"):
        stack.record(lambda: model.before(torch.zeros(2, 7)))
