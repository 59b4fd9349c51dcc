"""The training loop: its schedule, what it may not touch, and how it ends when numbers run away."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import pico
from tests.repair import material
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.data.encode import collate
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.repair.batches import Batches
from vlmc.toolchain.repair.checkpoints import Checkpoints
from vlmc.toolchain.repair.sparse_lora import AdapterPlan, SparseLoRA, attach
from vlmc.toolchain.repair.training import Trainer, default_rate, learning_rate
from vlmc.toolchain.settings import RepairSettings

QUIET = Progress(quiet=True)


def trainer(source: Checkpoint, options: RepairSettings = material.OPTIONS) -> Trainer:
    """Return a trainer of a model that is pruned to 2:4 by magnitude, with the model itself as the teacher."""
    model, masks = source.load(), {}
    for name in source.family.prunable(model):
        weight = model.get_parameter(f"{name}.weight")
        masks[name] = SparsityPattern.parse("2:4").mask(weight.detach().abs())
        weight.data.mul_(masks[name])
    plan = {name: AdapterPlan(options.rank, options.alpha, mask_OI) for name, mask_OI in masks.items()}
    plan |= {name: AdapterPlan(options.rank, options.alpha) for name in source.family.adaptable(model)}
    batches = Batches(material.samples(), material.encoder(source), options.batch, seed=0)
    return Trainer(attach(model, plan), source.load(), batches, options)


def answers(model: nn.Module, source: Checkpoint) -> Tensor:
    """Return a model's logits on a batch of questions."""
    encoder = material.encoder(source)
    feed = collate([encoder.question(sample) for sample in material.samples(3)], 0)
    with torch.no_grad():
        logits: Tensor = model(**feed).logits
    return logits


@pytest.mark.parametrize("family", pico.DEPLOYABLE)
def test_fifty_steps_leave_the_teacher_and_every_frozen_weight_as_they_were(family: str, tmp_path: Path) -> None:
    source = material.dense(family, tmp_path / "dense")
    some = trainer(source, material.OPTIONS.model_copy(update={"steps": 50}))
    model = some.adapters.model
    frozen = {name: one.detach().clone() for name, one in model.named_parameters() if not one.requires_grad}
    before = answers(model, source)
    records = some.train(Checkpoints(tmp_path / "run", {}), QUIET)

    assert torch.equal(answers(some.teacher, source), answers(source.load(), source))
    assert all(torch.equal(model.get_parameter(name), one) for name, one in frozen.items())
    assert not torch.equal(answers(model, source), before)
    with some.adapters.off():
        assert torch.equal(answers(model, source), before)
    for layer in some.adapters.layers.values():
        if isinstance(layer, SparseLoRA):
            assert not layer.merged()[~layer.mask_OI].any()
    assert len(records) == 50
    assert records[-1].loss < 0.7 * records[0].loss


def test_the_last_step_is_checkpointed_whatever_its_number(tmp_path: Path) -> None:
    some = trainer(material.dense("llava", tmp_path / "dense"), material.OPTIONS.model_copy(update={"steps": 3}))
    some.train(Checkpoints(tmp_path / "run", {}), QUIET)
    state = Checkpoints(tmp_path / "run", {}, resume=True).open()
    assert state is not None
    assert len(state["records"]) == 3


def test_training_draws_no_random_numbers_and_leaves_no_dropout_on(tmp_path: Path) -> None:
    some = trainer(material.dense("blip-2", tmp_path / "dense"), material.OPTIONS.model_copy(update={"steps": 2}))
    before = torch.random.get_rng_state()
    some.train(Checkpoints(tmp_path / "run", {}), QUIET)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(module.training for module in some.teacher.modules())


def spoil_teacher(some: Trainer) -> None:
    some.teacher.get_output_embeddings().weight.data.fill_(float("nan"))  # type: ignore[operator]


def blow_up_gradients(some: Trainer) -> None:
    next(iter(some.parameters)).register_hook(lambda gradient: gradient * float("inf"))


@pytest.mark.parametrize("spoil", [spoil_teacher, blow_up_gradients])
def test_numbers_that_run_away_end_the_run_at_its_last_checkpoint(spoil: Callable[[Trainer], None], tmp_path: Path) -> None:
    source = material.dense("llava", tmp_path / "dense")
    some, checkpoints = trainer(source), Checkpoints(tmp_path / "run", {}, resume=True)
    checkpoints.open()
    for _ in range(7):
        some.step()
    checkpoints.save(some.state())
    kept = (tmp_path / "run" / "state.safetensors").read_bytes()
    spoil(some)
    with pytest.raises(CheckFailed, match=r"broke off at step 8: loss .* lower --lr"):
        some.train(checkpoints, QUIET)
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == kept
    assert all(parameter.isfinite().all() for parameter in some.parameters)


def test_the_rate_rises_then_falls_to_a_tenth() -> None:
    rates = [learning_rate(step, 2000, 1e-3) for step in range(2000)]
    assert rates[0] < 2e-5
    assert max(rates) == rates[100] == pytest.approx(1e-3)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(1e-4)
    assert rates[1050] == pytest.approx(5.5e-4, rel=0.01)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_short_runs_have_a_rate_too(steps: int) -> None:
    assert all(0 < learning_rate(step, steps, 1e-3) <= 1e-3 for step in range(steps))


@pytest.mark.parametrize(("width", "rate"), [(64, 5e-3), (4096, 7.8125e-5)])
def test_the_default_rate_follows_the_width_of_most_layers(width: int, rate: float) -> None:
    model = nn.Sequential(nn.Linear(width, 8), nn.Linear(width, 8), nn.Linear(4 * width, 8))
    adapters = attach(model, {str(index): AdapterPlan(2, 2.0) for index in range(3)})
    assert default_rate(adapters) == pytest.approx(rate)


def test_a_rate_that_is_given_is_taken(tmp_path: Path) -> None:
    source = material.dense("llava", tmp_path / "dense")
    some = trainer(source, material.OPTIONS.model_copy(update={"lr": 0.02, "steps": 1}))
    assert some.step().lr == 0.02
    other = trainer(source, material.OPTIONS.model_copy(update={"lr": None, "steps": 1}))
    assert other.step().lr == pytest.approx(0.32 / pico.WIDTH)
