"""Accuracy of a demo model, kind by kind: an answer counts when greedy decoding gives exactly it."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo.architectures import DemoModel
from vlmc.toolchain.demo.learning import hidden
from vlmc.toolchain.demo.packed import IGNORE
from vlmc.toolchain.demo.packing import single


@torch.no_grad()
def score(model: DemoModel, prefix: tuple[int, ...], asked: Sequence[Sample], size: int = 250) -> dict[str, float]:
    """Return the share of exact answers for each kind, and for all under "all".

    One pass over question and answer decides: greedy decoding gives the answer exactly if every token of it is the
    likeliest one after the tokens before.
    """
    model.eval()
    agreed: list[bool] = []
    for start in range(0, len(asked), size):
        batch = single(prefix, asked[start : start + size])
        agreed += agreements(hidden(model, batch)[0], batch.labels_BT, model.get_output_embeddings())
    return shares([sample.kind for sample in asked], agreed)


def agreements(states_BTD: Tensor, labels_BT: Tensor, head: nn.Module) -> list[bool]:
    """Return for each row whether every token of its answer is the likeliest one."""
    chosen_BT = labels_BT != IGNORE
    wrong_BT = torch.zeros_like(chosen_BT)
    wrong_BT[chosen_BT] = head(states_BTD[chosen_BT]).argmax(-1) != labels_BT[chosen_BT]
    return [not wrong for wrong in wrong_BT.any(-1).tolist()]


def shares(kinds: Sequence[str], agreed: Sequence[bool]) -> dict[str, float]:
    """Return the share of agreed answers for each kind, and for all under "all"."""
    right: dict[str, list[bool]] = defaultdict(list)
    for kind, agrees in zip(kinds, agreed, strict=True):
        right[kind].append(agrees)
        right["all"].append(agrees)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}
