"""The training loop: its schedule, what it may not touch, and how it ends when numbers run away."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import pico
from tests.repair import material
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.data.encode import collate
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.adapters import attach
from vlmc.toolchain.repair.distillation import Copy, View
from vlmc.toolchain.repair.feeding import Batches, answer_logits
from vlmc.toolchain.repair.loading import restore_scaler, scaler_state
from vlmc.toolchain.repair.loading.precision import narrow
from vlmc.toolchain.repair.methods import AdapterSpec, LoRA, SparseLoRA
from vlmc.toolchain.repair.training import Checkpoints, Trainer
from vlmc.toolchain.repair.training.reports import summary
from vlmc.toolchain.repair.training.schedule import default_rate, learning_rate
from vlmc.toolchain.repair.training.stopping import EarlyStopping
from vlmc.toolchain.settings import Precision, RepairSettings

pytestmark = pytest.mark.integration

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    return material.dense("llava", tmp_path_factory.mktemp("training") / "dense")


def trainer(source: SavedModel, options: RepairSettings = material.OPTIONS) -> Trainer:
    """Return a trainer of a model that is pruned to 2:4 by magnitude, with the model itself as the teacher."""
    model, masks = source.load(), {}
    for name in source.family.prunable(model):
        weight = model.get_parameter(f"{name}.weight")
        masks[name] = SparsityPattern.parse("2:4").mask(weight.detach().abs())
        weight.data.mul_(masks[name])
    specs = {name: AdapterSpec(SparseLoRA, options.rank, options.alpha, mask_OI) for name, mask_OI in masks.items()}
    specs |= {name: AdapterSpec(LoRA, options.rank, options.alpha) for name in source.family.adaptable(model)}
    batches = Batches(material.samples(), material.encoder(source), options.batch, seed=0)
    teacher = Copy(source.load(), View(precision=options.precision))
    view = View(precision=options.precision)
    return Trainer(attach(model, specs), teacher, batches, options, group=ProcessGroup(), view=view)


def teacher_of(some: Trainer) -> nn.Module:
    assert isinstance(some.teacher, Copy)
    return some.teacher.model


def answers(model: nn.Module, source: SavedModel) -> Tensor:
    """Return a model's logits on a batch of questions."""
    encoder = material.encoder(source)
    feed = collate([encoder.question(sample) for sample in material.samples(3)], 0)
    with torch.no_grad():
        logits: Tensor = model(**feed).logits
    return logits


@pytest.mark.slow
@pytest.mark.parametrize("family", pico.USUAL)
def test_fifty_steps_leave_the_teacher_and_every_frozen_weight_as_they_were(family: str, tmp_path: Path) -> None:
    source = material.dense(family, tmp_path / "dense")
    some = trainer(source, material.OPTIONS.model_copy(update={"steps": 50}))
    model = some.adapters.model
    frozen = {name: one.detach().clone() for name, one in model.named_parameters() if not one.requires_grad}
    before = answers(model, source)
    records = some.train(Checkpoints(tmp_path), QUIET)

    assert torch.equal(answers(teacher_of(some), source), answers(source.load(), source))
    assert all(torch.equal(model.get_parameter(name), one) for name, one in frozen.items())
    assert not torch.equal(answers(model, source), before)
    with some.adapters.off():
        assert torch.equal(answers(model, source), before)
    for layer in some.adapters.layers.values():
        if isinstance(layer, SparseLoRA):
            assert not layer.merged()[~layer.mask_OI].any()
    assert len(records) == 50
    assert records[-1].loss < 0.7 * records[0].loss


def test_the_last_step_is_checkpointed_whatever_its_number(llava: SavedModel, tmp_path: Path) -> None:
    some = trainer(llava, material.OPTIONS.model_copy(update={"steps": 3}))
    some.train(Checkpoints(tmp_path), QUIET)
    state = Checkpoints(tmp_path).load()
    assert state is not None
    assert len(state["records"]) == 3


def test_training_draws_no_random_numbers_and_leaves_no_dropout_on(tmp_path: Path) -> None:
    some = trainer(material.dense("blip-2", tmp_path / "dense"), material.OPTIONS.model_copy(update={"steps": 2}))
    before = torch.random.get_rng_state()
    some.train(Checkpoints(tmp_path), QUIET)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(module.training for module in teacher_of(some).modules())


def spoil_teacher(some: Trainer) -> None:
    teacher_of(some).get_output_embeddings().weight.data.fill_(float("nan"))  # type: ignore[operator]


def blow_up_gradients(some: Trainer) -> None:
    next(iter(some.parameters)).register_hook(lambda gradient: gradient * float("inf"))


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [spoil_teacher, blow_up_gradients])
def test_ten_skipped_steps_in_a_row_end_the_run_at_its_last_good_checkpoint(
    spoil: Callable[[Trainer], None], llava: SavedModel, tmp_path: Path
) -> None:
    some, checkpoints = trainer(llava), Checkpoints(tmp_path)
    for _ in range(7):
        some.step()
    checkpoints.save(some.state())
    kept = (tmp_path / "state.safetensors").read_bytes()
    spoil(some)
    with pytest.raises(CheckFailed, match=r"stopped at step 17: 10 steps in a row .* lower --lr"):
        some.train(checkpoints, QUIET)
    assert (tmp_path / "state.safetensors").read_bytes() == kept
    assert all(parameter.isfinite().all() for parameter in some.parameters)
    assert [record.skipped for record in some.records] == 7 * [0.0] + 10 * [1.0]


def test_a_step_that_is_not_finite_is_skipped_and_counted(llava: SavedModel) -> None:
    """The skipped step moves nothing, AdamW's moments included; the steps after it are not skipped."""
    some = trainer(llava)
    for _ in range(3):
        some.step()
    before = some.state()
    parameter = some.parameters[2]
    handle = parameter.register_hook(lambda gradient: gradient * float("nan"))
    assert some.step().skipped
    handle.remove()
    after = some.state()
    moved = {name for name in before if name != "records" and not torch.equal(before[name], after[name])}
    assert not moved
    assert not some.step().skipped
    assert all(one.isfinite().all() for one in some.parameters)
    assert summary(some.records, {})["skipped"] == 1


@pytest.mark.parametrize("passes", [2, 3])
def test_accumulated_passes_give_the_whole_batchs_losses_and_gradient(passes: int, llava: SavedModel) -> None:
    """Answers differ in length, so that a mean of the passes' means would not do."""
    whole, parts = trainer(llava), trainer(llava, material.OPTIONS.model_copy(update={"accumulate": passes}))
    for _ in range(2):
        one, other = whole.step(), parts.step()
        assert other == pytest.approx(one, rel=1e-4)
    for mine, theirs in zip(whole.parameters, parts.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_a_batch_too_small_for_its_passes_is_refused(llava: SavedModel) -> None:
    options = material.OPTIONS.model_copy(update={"accumulate": 5})
    with pytest.raises(InputError, match="--batch 4 is less than 1 processes x 5 passes"):
        trainer(llava, options)


def test_gradients_are_clipped(llava: SavedModel) -> None:
    some = trainer(llava, material.OPTIONS.model_copy(update={"clip": 1e-3}))
    norm = some.step().norm
    left = torch.stack([one.grad.norm() for one in some.parameters if one.grad is not None]).norm()
    assert left == pytest.approx(1e-3, rel=1e-3)
    assert norm > 1e-3


def test_time_alone_brings_a_checkpoint(llava: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = material.OPTIONS.model_copy(update={"checkpoint_minutes": 2.0, "checkpoint_every": 100, "steps": 6})
    some, saved = trainer(llava, options), []
    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr("time.monotonic", lambda: 61.0 * len(some.records))
    monkeypatch.setattr(checkpoints, "save", lambda state: saved.append(len(state["records"])))
    some.train(checkpoints, QUIET)
    assert saved == [2, 4, 6]


class TestEarlyStopping:
    def test_it_stops_and_keeps_the_best(self, tmp_path: Path) -> None:
        stopping, parameter = EarlyStopping(2), nn.Parameter(torch.zeros(1))
        for step, loss in enumerate([3.0, 1.0, 2.0, float("nan")], 1):
            assert not stopping.over
            parameter.data.fill_(step)
            stopping.note(step, loss, {"x": parameter})
        assert stopping.over
        again = EarlyStopping(2)
        again.restore(stopping.state())
        assert again.over
        again.restore_best({"x": parameter})
        assert parameter.item() == 2.0

    def test_a_new_best_goes_on(self) -> None:
        stopping, parameter = EarlyStopping(1), nn.Parameter(torch.zeros(1))
        for step, loss in enumerate([3.0, 2.0, 1.0], 1):
            stopping.note(step, loss, {"x": parameter})
            assert not stopping.over


def test_validation_is_the_tasks_loss_on_other_data(llava: SavedModel, tmp_path: Path) -> None:
    options = material.OPTIONS.model_copy(update={"steps": 5, "validate_every": 2, "lr": 1e-9})
    some = trainer(llava, options)
    some.validation = Batches(material.samples(7), material.encoder(llava), 3, seed=1)
    some.train(Checkpoints(tmp_path), QUIET)
    assert list(some.stopping.losses) == [2, 4, 5]
    batch = some.validation.of(range(7))
    expected = F.cross_entropy(answer_logits(some.adapters.model, batch), batch.answers_N)
    assert some.stopping.losses[5] == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_in_float32_masters(precision: Precision, llava: SavedModel) -> None:
    exact, some = trainer(llava), trainer(llava, material.OPTIONS.model_copy(update={"precision": precision}))
    for _ in range(3):
        one, other = exact.step(), some.step()
        assert not other.skipped
        assert other.loss == pytest.approx(one.loss, rel=0.05)
        assert other.loss != one.loss
    assert {parameter.dtype for parameter in some.parameters} == {torch.float32}


def test_fp16_halves_its_scale_where_a_gradient_overflows_and_the_state_says_so(llava: SavedModel) -> None:
    some = trainer(llava, material.OPTIONS.model_copy(update={"precision": "fp16"}))
    restore_scaler(some.scaler, torch.tensor([2.0**60, 0]))
    assert some.step().skipped
    assert scaler_state(some.scaler).tolist() == [2.0**59, 0]
    again = trainer(llava, material.OPTIONS.model_copy(update={"precision": "fp16"}))
    again.restore(some.state())
    assert scaler_state(again.scaler).tolist() == [2.0**59, 0]


def test_weights_stored_in_the_products_type_are_kept_in_it() -> None:
    model = nn.Linear(4, 4)
    stored = {name: torch.bfloat16 for name, _ in model.named_parameters()}
    model.register_buffer("frequencies", torch.ones(2))
    assert narrow(model, stored, "fp16").weight.dtype == torch.float32
    assert narrow(model, stored, "bf16").weight.dtype == torch.bfloat16
    assert model.get_buffer("frequencies").dtype == torch.float32


def test_a_warm_up_is_a_tenth_at_most() -> None:
    assert learning_rate(0, 100, 1.0, 5) == pytest.approx(1 / 6)
    assert learning_rate(5, 100, 1.0, 5) == 1.0
    assert learning_rate(0, 100, 1.0, 0) == 1.0
    assert learning_rate(10, 100, 1.0, 99) == 1.0


def test_the_rate_rises_then_falls_to_a_tenth() -> None:
    rates = [learning_rate(step, 2000, 1e-3, 100) for step in range(2000)]
    assert rates[0] < 2e-5
    assert max(rates) == rates[100] == pytest.approx(1e-3)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(1e-4)
    assert rates[1050] == pytest.approx(5.5e-4, rel=0.01)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_short_runs_have_a_rate_too(steps: int) -> None:
    assert all(0 < learning_rate(step, steps, 1e-3, 100) <= 1e-3 for step in range(steps))


@pytest.mark.parametrize(("width", "rate"), [(64, 5e-3), (4096, 7.8125e-5)])
def test_the_default_rate_follows_the_width_of_most_layers(width: int, rate: float) -> None:
    model = nn.Sequential(nn.Linear(width, 8), nn.Linear(width, 8), nn.Linear(4 * width, 8))
    adapters = attach(model, {str(index): AdapterSpec(LoRA, 2, 2.0) for index in range(3)})
    assert default_rate(adapters) == pytest.approx(rate)


def test_a_rate_that_is_given_is_taken(llava: SavedModel) -> None:
    some = trainer(llava, material.OPTIONS.model_copy(update={"lr": 0.02, "steps": 1}))
    assert some.step().lr == 0.02
    other = trainer(llava, material.OPTIONS.model_copy(update={"lr": None, "steps": 1}))
    assert other.step().lr == pytest.approx(0.32 / pico.WIDTH)


def test_a_run_with_patience_ends_in_its_best_parameters(llava: SavedModel, tmp_path: Path) -> None:
    some = trainer(llava, material.OPTIONS.model_copy(update={"lr": 0.3, "validate_every": 2, "patience": 2}))
    some.validation = Batches(material.samples(9), material.encoder(llava), 4, seed=1)
    some.train(Checkpoints(tmp_path), QUIET)
    batch = some.validation.of(range(9))
    found = float(F.cross_entropy(answer_logits(some.adapters.model, batch), batch.answers_N).detach())
    losses = some.stopping.losses
    assert found == pytest.approx(min(losses.values()), rel=1e-4)
    assert found < losses[max(losses)]
