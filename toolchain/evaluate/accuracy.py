"""Accuracy on questions: a model answers greedily, and its answers are scored by a metric."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from vlmc.toolchain.data.encode import Encoded, Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.batching import batches, shape, stack, windows
from vlmc.toolchain.evaluate.metrics import scores
from vlmc.toolchain.machine.progress import Progress, Task
from vlmc.toolchain.models.own_code import own_code
from vlmc.toolchain.settings import Metric


@dataclass(frozen=True)
class Accuracy:
    """Mean scores (of exact match: fractions of right answers), overall and by kind of question, and how many questions."""

    overall: float
    by_kind: dict[str, float]
    count: int


def evaluate(
    model: nn.Module, encoder: Encoder, samples: Sequence[Sample], progress: Progress, *, title: str, batch: int = 64
) -> Accuracy:
    """Answer every question and score the answers."""
    asked: list[Sample] = []
    answers = answer_all(model, encoder, samples, progress, title=title, batch=batch, asked=asked)
    return score(asked, answers)


def score(samples: Sequence[Sample], answers: Sequence[str], metric: Metric = "exact") -> Accuracy:
    """Score the answers against the expected ones."""
    found = scores(metric, samples, answers)
    kinds = sorted({sample.kind for sample in samples})
    by_kind = {kind: [one for sample, one in zip(samples, found, strict=True) if sample.kind == kind] for kind in kinds}
    return Accuracy(
        overall=sum(found) / len(found),
        by_kind={kind: sum(some) / len(some) for kind, some in by_kind.items()},
        count=len(found),
    )


def answer_all(
    model: nn.Module,
    encoder: Encoder,
    samples: Sequence[Sample],
    progress: Progress,
    *,
    title: str,
    batch: int = 64,
    asked: list[Sample] | None = None,
) -> list[str]:
    """Answer greedily, batch by batch; `asked` is filled with the samples, without their images.

    Only a few batches are in memory at a time.
    """
    answers: list[str] = []
    with progress.task(title, len(samples)) as bar:
        for some in windows(samples, encoder, batch):
            if asked is not None:
                asked += [replace(sample, images=()) for sample in some.samples]
            answers += _decode(encoder, _answer(model, encoder, some.encoded, batch, bar))
    return answers


@torch.inference_mode()
def _answer(model: nn.Module, encoder: Encoder, encoded: Sequence[Encoded], size: int, bar: Task) -> list[list[int]]:
    """Return the answers' tokens, generated in batches of questions of similar length."""
    answers: list[list[int]] = [[] for _ in encoded]
    for batch in batches([shape(encoder, item) for item in encoded], size):
        for index, tokens in zip(batch, _generate(model, encoder, [encoded[index] for index in batch]), strict=True):
            answers[index] = tokens
            bar.advance()
    return answers


def _generate(model: nn.Module, encoder: Encoder, encoded: Sequence[Encoded]) -> list[list[int]]:
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in stack(encoder, encoded).items()}
    most = min(shape(encoder, item).room for item in encoded)
    with own_code():
        tokens = model.generate(  # type: ignore[operator]
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=most,
            eos_token_id=list(encoder.end_ids),
            pad_token_id=encoder.end_ids[0],
        )
    length = inputs["input_ids"].shape[1]
    if tokens.shape[1] >= length and torch.equal(tokens[:, :length], inputs["input_ids"]):
        tokens = tokens[:, length:]  # some families return the question before the answer
    found: list[list[int]] = tokens.tolist()
    return found


def _decode(encoder: Encoder, answers: Sequence[Sequence[int]]) -> list[str]:
    return [text.strip() for text in encoder.processor.batch_decode(answers, skip_special_tokens=True)]
