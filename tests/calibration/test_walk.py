"""The walk: what it need not run, what the next block sees, and that gradients and losses can be had on the way."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import pico
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain import data
from vlmc.toolchain.calibration.gathering import gathering
from vlmc.toolchain.calibration.inputs import encode
from vlmc.toolchain.calibration.passage import Passage
from vlmc.toolchain.calibration.statistics import Need
from vlmc.toolchain.calibration.walk import Calibration
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.prune import Prune


class Block(nn.Module):
    """Runs its layers in the order, and as often, as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.ended = 0

    def forward(self, x: Tensor, layers: tuple[str, ...]) -> Tensor:
        for name in layers:
            x = self.get_submodule(name)(x)
        self.ended += 1
        return x


@pytest.mark.parametrize(
    ("orders", "ended"),
    [
        ([("first", "last")] * 3, 1),
        ([("first", "last", "first")] * 3, 3),
        ([("first",), ("first", "last"), ("last",)], 3),
        ([("first", "last"), ("last", "first"), ("first",)], 2),
    ],
)
def test_a_pass_ends_once_all_layers_inputs_are_seen(orders: list[tuple[str, ...]], ended: int) -> None:
    block, expected = Block(), Block()
    expected.load_state_dict(block.state_dict())
    with gathering("block", block, Need.DIAGONAL) as gathered, gathering("block", expected, Need.DIAGONAL) as whole:
        for number, order in enumerate(orders):
            x = torch.full((1, 2, 4), number + 1.0)
            gathered.run(lambda x=x, order=order: block(x, order), None)  # type: ignore[misc]
            whole.weights_T = None
            expected(x, order)
    assert block.ended == ended
    for name, found in gathered.statistics.items():
        assert torch.equal(found.squares_I, whole.statistics[name].squares_I)
        assert torch.equal(found.count, whole.statistics[name].count)


def prune(family: str, folder: Path, out: str) -> Artifact:
    source = SavedModel.find(str(pico.save(family, folder / "dense")))
    return Prune(PruneSettings(calibration=3)).run(source, folder / out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "shortened"),
    [("llava", 1), ("blip-2-t5", 2), ("qwen3_vl", 0)],  # Qwen3-VL takes features from all over its tower
)
def test_samples_that_start_at_the_last_block_of_an_earlier_tower_come_to_the_same(
    family: str, shortened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    enter_from = Passage._enter_from

    def noted(passage: Passage, earlier: Passage) -> object:
        rest = enter_from(passage, earlier)
        left.append(len(rest))
        return rest

    with monkeypatch.context() as patch:
        patch.setattr(Passage, "_enter_from", noted)
        short = prune(family, tmp_path, "short")
    assert left.count(0) == shortened
    with monkeypatch.context() as patch:
        patch.setattr(Passage, "_enter_from", lambda passage, earlier: passage.samples)
        assert prune(family, tmp_path, "whole").digest == short.digest


def calibration(folder: Path, *, labels: bool = False) -> tuple[Calibration, list[str], SavedModel]:
    """Two samples for a pico LLaVA, and the names of its blocks: three of the vision tower, two of the language model."""
    source = SavedModel.find(str(pico.save("llava", folder / "dense", torch.float32)))
    model, family, group = source.stream(torch.device("cpu")), source.family, ProcessGroup()
    encoder = Encoder(source.load_processor(), family, model.module)
    inputs, _ = encode(data.load("demo", "train", 2), encoder, model, group, "all", labels=labels)
    blocks = [name for tower in family.towers for name, _ in family.blocks(model.module, tower)]
    return Calibration(model, family, inputs, group), blocks, source


@pytest.mark.integration
@torch.no_grad()
def test_a_block_sees_what_the_loop_made_of_the_blocks_before_it(tmp_path: Path) -> None:
    some, (*vision, first, second), source = calibration(tmp_path)
    walked, inputs = [], []
    for block in some.walk([vision[1], first, second], Need.DIAGONAL):
        walked.append(block.name)
        inputs.append(block.run(1).before)
        if block.name == first:
            for parameter in block.module.parameters():
                parameter.mul_(0.5)
    assert walked == [vision[1], first, second], "vision[0] runs, but is not yielded; vision[2] does not even run"
    model, seen = source.load(), []
    for parameter in model.get_submodule(first).parameters():
        parameter.mul_(0.5)
    for name in walked:
        hook = lambda module, args, kwargs: seen.append((*args, *kwargs.values())[0])  # noqa: E731
        model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)
    model(**some.inputs[1], use_cache=False)
    for found, expected in zip(inputs, seen, strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_where_nothing_is_needed_no_sample_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, blocks, _ = calibration(tmp_path)
    monkeypatch.delattr(Passage, "enter")
    assert [(block.name, block.statistics) for block in some.walk(blocks, Need.NOTHING)] == [(name, {}) for name in blocks]


@pytest.mark.integration
def test_gradients_of_a_block_and_of_the_loss_can_be_had_on_the_walk(tmp_path: Path) -> None:
    some, (first, *_, last), source = calibration(tmp_path, labels=True)
    dense = source.load()
    loss = dense(**some.inputs[0], use_cache=False).loss
    for block in some.walk([first, last], Need.RUNS):
        name = next(name for name, _ in block.module.named_parameters() if "proj" in name)
        weight = block.module.get_parameter(name)
        (inside,) = torch.autograd.grad(block.run(0).after.square().sum(), weight)
        assert float(inside.norm()) > 0
        (found,) = torch.autograd.grad(some.loss(0), weight)
        (expected,) = torch.autograd.grad(loss, dense.get_parameter(f"{block.name}.{name}"), retain_graph=True)
        torch.testing.assert_close(found, expected)
        with torch.no_grad():
            assert block.run(0).after.grad_fn is None
