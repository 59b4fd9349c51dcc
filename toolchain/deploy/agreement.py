"""Agreement: the exported graphs generate the same tokens as transformers, from the family's own processor.

Shapes: V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vlmc.runtime.deployment import Deployment
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.model import Model
from vlmc.runtime.sessions import Session
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.models.saved import SavedModel

TOKENS, FEW = 32, 4
"""Tokens of an answer that are compared; `FEW` of a streamed model, which reads all its weights for each of them."""


@dataclass(frozen=True)
class Exported:
    """Graphs on disk: how they are fed, their folder, their files' suffix, and what runs one."""

    deployment: Deployment
    folder: Path
    suffix: str
    session: Callable[[Path], Session]

    def open(self, root: Path) -> Model:
        """Load them; `root` holds the tokenizer and the processor."""
        names = self.deployment.graphs.names
        return Model.from_sessions(
            root, self.deployment, {n: self.session(self.folder / f"{n}{self.suffix}") for n in names}
        )


def compare_answers(
    model: nn.Module,
    saved: SavedModel,
    exported: Exported,
    asked: Sequence[Sample],
    tolerance: float,
    limit: int = TOKENS,
) -> dict[str, Any]:
    """Ask the graphs and the model the same questions about images; return how many, and how many tokens were compared.

    `limit` is the most tokens of an answer.

    Both generate beyond the end of an answer, so that short answers prove as much as long ones. Where two logits are all
    but equal, rounding decides which token greedy decoding takes: a token may differ where the model's own logits of both
    are within `tolerance` of the largest.

    Raises:
        CheckFailed: any other token differs.
    """
    encoder = Encoder(saved.load_processor(), saved.family, model)
    endless = replace(exported, deployment=exported.deployment.model_copy(update={"stop_ids": ()}))
    tokens = ties = 0
    with endless.open(saved.folder) as graphs:
        for sample in asked:
            expected, logits = greedy(model, encoder, sample, limit, stop=False)
            found = graphs.generate(sample.load_images(), sample.question, max_new_tokens=limit).tokens
            tokens += len(expected)
            ties += _check_same(sample, expected, list(found), logits, tolerance)
    return {"questions": len(asked), "tokens": tokens, "answers_that_differ_at_a_tie": ties}


def greedy(
    model: nn.Module, encoder: Encoder, sample: Sample, limit: int = TOKENS, *, stop: bool = True
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Return transformers' own greedy answer as token ids, and the logits (V) that each was chosen from.

    Without `stop` it continues after the end of the answer, up to the limit.
    """
    config: Any = model.config
    never = config.get_text_config().vocab_size  # no token has this number
    asked = encoder.question(sample)
    room = encoder.room(asked)
    with torch.no_grad():
        output = model.generate(  # type: ignore[operator]
            **asked,
            do_sample=False,
            num_beams=1,
            max_new_tokens=limit if room is None else min(limit, room),
            eos_token_id=list(encoder.end_ids) if stop else [never],
            pad_token_id=encoder.end_ids[0],
            return_dict_in_generate=True,
            output_logits=True,
        )
    logits = [step[0].float().numpy() for step in output.logits]
    return output.sequences[0].tolist()[-len(logits) :], logits


def _check_same(
    sample: Sample, expected: list[int], found: list[int], logits: list[NDArray[np.float32]], tolerance: float
) -> int:
    """Return 0 for equal answers, 1 for answers that differ at a tie."""
    if expected == found:
        return 0
    pairs = enumerate(zip(expected, found, strict=False))
    step = next((index for index, (one, other) in pairs if one != other), None)
    if step is not None:
        gap = float(logits[step][expected[step]] - logits[step][found[step]])
        if gap <= 2 * tolerance * float(np.abs(logits[step]).max()):
            return 1
    raise CheckFailed(
        f"the exported graphs answer {sample.question!r} about {sample.id} with tokens {found}, the model with {expected}"
    )
