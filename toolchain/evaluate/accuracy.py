"""Accuracy on questions with short answers: exact match after folding case, white space and a final full stop."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn

from vlmc.toolchain.data.encode import Encoded, Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.progress import Progress

MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class Accuracy:
    """Fractions of right answers: overall and by kind of question, with the number of questions."""

    overall: float
    by_kind: dict[str, float]
    count: int


def evaluate(
    model: nn.Module, encoder: Encoder, samples: Sequence[Sample], progress: Progress, *, title: str, batch: int = 64
) -> Accuracy:
    """Ask every question and score the answers."""
    asked = list(samples)
    return score(asked, answer_all(model, encoder, asked, progress, title=title, batch=batch))


def score(samples: Sequence[Sample], answers: Sequence[str]) -> Accuracy:
    """Compare given answers with the expected ones."""
    right = [fold(sample.answer) == fold(answer) for sample, answer in zip(samples, answers, strict=True)]
    kinds = sorted({sample.kind for sample in samples})
    by_kind = {kind: [hit for sample, hit in zip(samples, right, strict=True) if sample.kind == kind] for kind in kinds}
    return Accuracy(
        overall=sum(right) / len(right),
        by_kind={kind: sum(hits) / len(hits) for kind, hits in by_kind.items()},
        count=len(right),
    )


def fold(answer: str) -> str:
    """Return the answer as it is compared."""
    return " ".join(answer.casefold().split()).removesuffix(".").rstrip()


@torch.inference_mode()
def answer_all(
    model: nn.Module, encoder: Encoder, samples: Sequence[Sample], progress: Progress, *, title: str, batch: int = 64
) -> list[str]:
    """Answer greedily; questions of one length share a batch, so nothing is padded."""
    asked = [encoder.question(sample) for sample in samples]
    answers = [""] * len(asked)
    with progress.task(title, len(asked)) as bar:
        for indices in _batches([int(item["input_ids"].shape[1]) for item in asked], batch):
            texts = _generate(model, encoder, [asked[index] for index in indices])
            for index, text in zip(indices, texts, strict=True):
                answers[index] = text
                bar.advance()
    return answers


def _batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    groups = [list(group) for _, group in groupby(order, key=lambda index: lengths[index])]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def _generate(model: nn.Module, encoder: Encoder, asked: Sequence[Encoded]) -> list[str]:
    feed = encoder.collate(asked)
    length, room = feed["input_ids"].shape[1], encoder.room(feed)
    tokens = model.generate(  # type: ignore[operator]
        **feed,
        do_sample=False,
        num_beams=1,
        max_new_tokens=MAX_NEW_TOKENS if room is None else min(MAX_NEW_TOKENS, room),
        eos_token_id=list(encoder.end_ids),
        pad_token_id=encoder.end_ids[0],
    )
    if tokens.shape[1] >= length and torch.equal(tokens[:, :length], feed["input_ids"]):
        tokens = tokens[:, length:]  # some families give the question back before the answer
    return [text.strip() for text in encoder.processor.batch_decode(tokens, skip_special_tokens=True)]
