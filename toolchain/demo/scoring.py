"""Accuracy of a demo model by kind of question: an answer is right if greedy decoding gives exactly it."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo.architectures import DemoModel
from vlmc.toolchain.demo.learning import hidden
from vlmc.toolchain.demo.packing import IGNORE, single


@torch.no_grad()
def score(model: DemoModel, prefix: tuple[int, ...], asked: Sequence[Sample], size: int = 250) -> dict[str, float]:
    """Return the share of exact answers for each kind, and for all under "all".

    One pass over question and answer is enough: greedy decoding gives the answer if each of its tokens is the likeliest one
    after those before it.
    """
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        batch = single(prefix, part)
        logits_BTV = model.get_output_embeddings()(hidden(model, batch)[0])
        agrees_BT = (logits_BTV.argmax(-1) == batch.labels_BT) | (batch.labels_BT == IGNORE)
        for sample, agrees in zip(part, agrees_BT.all(-1).tolist(), strict=True):
            right[sample.kind].append(agrees)
            right["all"].append(agrees)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}
