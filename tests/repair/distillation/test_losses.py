"""The losses: their values, and that they count answer tokens alone."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests import pico
from tests.repair import material
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.encode import IGNORE, collate
from vlmc.toolchain.repair.distillation import Losses, View, repair_loss
from vlmc.toolchain.repair.distillation.losses import hidden_distance
from vlmc.toolchain.repair.distillation.targets import FullTarget, SampledTokens, TopTokens
from vlmc.toolchain.repair.distillation.views import Seen
from vlmc.toolchain.repair.feeding import answer_logits, find_answers
from vlmc.toolchain.settings import Direction, RepairSettings

STUDENT_NV, TEACHER_NV = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
ANSWERS_N = torch.tensor([0, 3, 6, 2, 2])


def loss(student_NV: Tensor, teacher_NV: Tensor, answers_N: Tensor, **options: object) -> Losses:
    return repair_loss(Seen(student_NV), FullTarget(teacher_NV), answers_N, RepairSettings(**options))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_is_the_mean_over_tokens_times_the_square_of_the_temperature(temperature: float) -> None:
    p, q = (TEACHER_NV / temperature).softmax(-1), (STUDENT_NV / temperature).softmax(-1)
    forward, reverse = (p * (p / q).log()).sum(-1).mean(), (q * (q / p).log()).sum(-1).mean()
    teacher, square = FullTarget(TEACHER_NV), temperature**2
    torch.testing.assert_close(teacher.divergence(STUDENT_NV, "forward", temperature), square * forward)
    torch.testing.assert_close(teacher.divergence(STUDENT_NV, "reverse", temperature), square * reverse)
    assert FullTarget(STUDENT_NV).divergence(STUDENT_NV, "forward", temperature).abs() < 1e-6


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_total_is_the_weighted_sum(share: float, direction: Direction) -> None:
    losses = loss(STUDENT_NV, TEACHER_NV, ANSWERS_N, task_weight=share, kl=direction, temperature=2.0)
    torch.testing.assert_close(losses.task, -STUDENT_NV.log_softmax(-1)[torch.arange(5), ANSWERS_N].mean())
    torch.testing.assert_close(losses.kl, FullTarget(TEACHER_NV).divergence(STUDENT_NV, direction, 2.0))
    torch.testing.assert_close(losses.total, share * losses.task + (1 - share) * losses.kl)


def test_hidden_states_are_compared_by_what_share_of_them_is_wrong() -> None:
    true = [torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])]
    found = [torch.tensor([[3.0, 3.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])]
    assert hidden_distance(found, true).item() == pytest.approx(((1 / 25 + 0) / 2 + (0 + 1) / 2) / 2)
    options = RepairSettings(hidden=3.0, task_weight=1.0)
    losses = repair_loss(Seen(STUDENT_NV, found), FullTarget(TEACHER_NV, true), ANSWERS_N, options)
    torch.testing.assert_close(losses.total, losses.task + 3.0 * losses.hidden)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_top_words_lump_the_rest_together(direction: Direction) -> None:
    p, q = (TEACHER_NV / 2).softmax(-1), (STUDENT_NV / 2).softmax(-1)
    top = p.topk(3).indices
    p, q = (torch.cat([x.gather(1, top), 1 - x.gather(1, top).sum(1, keepdim=True)], 1) for x in (p, q))
    true, guess = (p, q) if direction == "forward" else (q, p)
    found = TopTokens.of(TEACHER_NV, 2.0, 3).divergence(STUDENT_NV, direction, 2.0)
    torch.testing.assert_close(found, 4 * (true * (true / guess).log()).sum(-1).mean())
    assert found <= FullTarget(TEACHER_NV).divergence(STUDENT_NV, direction, 2.0)
    nearly = TopTokens.of(TEACHER_NV, 1.0, 99).divergence(STUDENT_NV, direction, 1.0)
    torch.testing.assert_close(nearly, FullTarget(TEACHER_NV).divergence(STUDENT_NV, direction, 1.0))


def test_drawn_words_are_unbiased_and_so_is_their_gradient() -> None:
    """The mean of many draws; three standard errors of it are about 0.02."""
    student_NV = STUDENT_NV.clone().requires_grad_()
    true = FullTarget(TEACHER_NV).divergence(student_NV, "forward", 1.0)
    (gradient,) = torch.autograd.grad(true, student_NV)
    drawn = SampledTokens.of(TEACHER_NV, 1.0, 20_000, torch.Generator().manual_seed(0))
    found = drawn.divergence(student_NV, "forward", 1.0)
    torch.testing.assert_close(found, true, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(found, student_NV)[0], gradient, atol=0.004, rtol=0)
    with pytest.raises(InputError, match="--kl reverse needs"):
        drawn.divergence(student_NV, "reverse", 1.0)


@pytest.mark.integration
def test_hidden_states_are_those_of_the_answers_in_the_blocks_asked_for(tmp_path: Path) -> None:
    source = material.dense("llava", tmp_path / "dense")
    model, encoder = source.load(), material.encoder(source)
    batch = find_answers(collate([encoder.answered(sample) for sample in material.samples(3)], 0))
    tower = source.family.towers[-1]
    blocks = [name for name, _ in source.family.blocks(model, tower)]
    seen = View(blocks).of(model, batch)
    assert not any(model.get_submodule(name)._forward_hooks for name in blocks)
    states_BTD = model(**batch.inputs, output_hidden_states=True).hidden_states  # the last one is normed, unlike a block's
    assert len(seen.hidden_ND) == len(blocks)
    torch.testing.assert_close(seen.hidden_ND[0], states_BTD[1][:, batch.columns_K][batch.answered_BK])
    torch.testing.assert_close(seen.logits_NV, answer_logits(model, batch))


@pytest.mark.integration
@pytest.mark.parametrize("family", pico.USUAL)
def test_only_answers_count(family: str, tmp_path: Path) -> None:
    source = material.dense(family, tmp_path / "dense")
    model, encoder, samples = source.load(), material.encoder(source), material.samples(4)
    encoded = [encoder.answered(sample) for sample in samples]
    batch = find_answers(collate(encoded, 0))
    tokens = sum(len(sample.answer.split()) + 1 for sample in samples)  # and the end of the sequence
    assert batch.answers_N.shape == (tokens,)
    logits_NV = answer_logits(model, batch).detach()

    alone = [model(**{k: v for k, v in one.items() if k != "labels"}).logits[0, :-1] for one in encoded]
    chosen = [logits[one["labels"][0, 1:] != IGNORE] for logits, one in zip(alone, encoded, strict=True)]
    torch.testing.assert_close(logits_NV, torch.cat(chosen).detach())
    labels = torch.cat([one["labels"][one["labels"] != IGNORE] for one in encoded])
    assert torch.equal(batch.answers_N, labels)

    fills = {"input_ids": 0, "attention_mask": 0, "labels": IGNORE}
    padded = {
        name: F.pad(one, (0, 9), value=fills[name]) if name in fills else one for name, one in collate(encoded, 0).items()
    }
    longer = find_answers(padded)
    before = loss(logits_NV, logits_NV.roll(1, -1), batch.answers_N)
    padded_NV = answer_logits(model, longer).detach()
    after = loss(padded_NV, padded_NV.roll(1, -1), longer.answers_N)
    torch.testing.assert_close(after, before)
