"""The losses: their values, and that they count answer tokens alone."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests import pico
from tests.repair import material
from vlmc.toolchain.data.encode import IGNORE, collate
from vlmc.toolchain.repair.batches import answer_logits, find_answers
from vlmc.toolchain.repair.losses import divergence, ressa_loss
from vlmc.toolchain.settings import Direction

STUDENT_NV, TEACHER_NV = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
ANSWERS_N = torch.tensor([0, 3, 6, 2, 2])


def test_divergence_is_the_mean_over_tokens() -> None:
    p, q = TEACHER_NV.softmax(-1), STUDENT_NV.softmax(-1)
    torch.testing.assert_close(divergence(STUDENT_NV, TEACHER_NV, "forward"), (p * (p / q).log()).sum(-1).mean())
    torch.testing.assert_close(divergence(STUDENT_NV, TEACHER_NV, "reverse"), (q * (q / p).log()).sum(-1).mean())
    assert divergence(STUDENT_NV, STUDENT_NV, "forward").abs() < 1e-6


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_total_is_the_weighted_sum(share: float, direction: Direction) -> None:
    losses = ressa_loss(STUDENT_NV, TEACHER_NV, ANSWERS_N, share, direction)
    torch.testing.assert_close(losses.task, -STUDENT_NV.log_softmax(-1)[torch.arange(5), ANSWERS_N].mean())
    torch.testing.assert_close(losses.kl, divergence(STUDENT_NV, TEACHER_NV, direction))
    torch.testing.assert_close(losses.total, share * losses.task + (1 - share) * losses.kl)


@pytest.mark.parametrize("family", pico.DEPLOYABLE)
def test_only_answers_count(family: str, tmp_path: Path) -> None:
    source = material.dense(family, tmp_path / "dense")
    model, encoder, samples = source.load(), material.encoder(source), material.samples(4)
    encoded = [encoder.answered(sample) for sample in samples]
    batch = find_answers(collate(encoded, 0))
    words = sum(len(sample.answer.split()) + 1 for sample in samples)  # and the end of the sequence
    assert batch.answers_N.shape == (words,)
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
    before = ressa_loss(logits_NV, logits_NV.roll(1, -1), batch.answers_N, 0.5, "forward")
    padded_NV = answer_logits(model, longer).detach()
    after = ressa_loss(padded_NV, padded_NV.roll(1, -1), longer.answers_N, 0.5, "forward")
    torch.testing.assert_close(after, before)
