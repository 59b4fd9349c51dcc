"""The graphs of an encoder-decoder language model, and inputs as they come in generation.

Shapes: B batch, S new tokens, T past and new tokens, C tokens of the question, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.runtime.processing import Batch
from vlmc.toolchain.deploy.sources import ANSWER, ROWS, Sources, embed
from vlmc.toolchain.deploy.t5 import OWN, QUESTION, AnswerDecoder, QuestionEncoder, answer_cache, cache_names

MASK = "encoder_attention_mask"
"""The decoder's input for the question's mask."""


def describe(sources: Sources) -> list[GraphSpec]:
    """Describe the encoder and the decoder."""
    encoder = _encoder(sources)
    return [encoder, _decoder(sources, encoder)]


@torch.no_grad()
def _encoder(sources: Sources) -> GraphSpec:
    """Describe embeddings (B, C, D), mask (B, C) -> keys and values of the question for every decoder layer."""
    language: Any = sources.wiring.language
    one, several = (
        {"inputs_embeds": embed(sources, batch)[0], "attention_mask": torch.from_numpy(batch.mask_BS)}
        for batch in sources.batches[:2]
    )
    assert sources.deployment.graphs.encoder is not None
    module = QuestionEncoder(language).eval()
    return GraphSpec(
        name=sources.deployment.graphs.encoder,
        module=module,
        inputs=several,
        outputs=tuple(f"present.{name}" for name in cache_names(answer_cache(language.config), QUESTION)),
        axes={name: ROWS | {1: sources.sequence} for name in several},
        cases=[one],
        keep_fp32=_overflowing(module),
    )


def _decoder(sources: Sources, encoder: GraphSpec) -> GraphSpec:
    """Describe the decoder; see `AnswerDecoder.forward` for the shapes."""
    language: Any = sources.wiring.language
    cache, module = answer_cache(language.config), AnswerDecoder(language).eval()
    past = [f"past_key_values.{name}" for name in cache_names(cache, OWN, QUESTION)]
    names = ("inputs_embeds", "attention_mask", "position_ids", MASK, *past)
    inputs = [dict(zip(names, case, strict=True)) for case in _cases(sources, encoder, module)]
    answer = Axis("sequence", 1, 1, sources.limit)
    before = Axis("past", 0, ANSWER, sources.limit)
    question = Axis("question", 1, sources.optimum, sources.limit)
    return GraphSpec(
        name=sources.deployment.graphs.decoder,
        module=module,
        inputs=inputs[0],
        outputs=("logits", *(f"present.{name}" for name in cache_names(cache, OWN))),
        axes={
            "inputs_embeds": ROWS | {1: answer},
            "attention_mask": ROWS | {1: Axis("total", 1, ANSWER + 1, 2 * sources.limit)},
            "position_ids": ROWS | {1: answer},
            MASK: ROWS | {1: question},
        }
        | {name: ROWS | {2: before if f".{OWN}." in name else question} for name in past},
        cases=inputs[1:],
        keep_fp32=_overflowing(module),
    )


def _overflowing(module: nn.Module) -> frozenset[str]:
    """Return the layers that transformers keeps in float32, too (`_keep_in_fp32_modules` of T5)."""
    return frozenset(name for name, _ in module.named_modules() if name.endswith(".wo"))


@torch.no_grad()
def _cases(sources: Sources, encoder: GraphSpec, module: AnswerDecoder) -> list[list[Tensor]]:
    """Return inputs as in generation: the first token, several after it, one after those; one row, and padded rows."""
    size = answer_cache(module.decoder.config)

    def start(case: dict[str, Tensor], batch: Batch) -> list[Tensor]:
        keys = encoder.module(*case.values())
        rows = len(batch.ids_BS)
        own = size.empty(rows)
        past = [tensor for at in range(0, len(own), 2) for tensor in (*own[at : at + 2], *keys[at : at + 2])]
        first = sources.embedding(torch.full((rows, 1), sources.deployment.start_id or 0))
        return [
            first,
            torch.ones(rows, 1, dtype=torch.long),
            torch.zeros(rows, 1, dtype=torch.long),
            case["attention_mask"],
            *past,
        ]

    def after(case: list[Tensor], new: int) -> list[Tensor]:
        mask, answered, question = case[1], module(*case)[1:], case[4:]
        past = [
            one for at in range(0, len(answered), 2) for one in (*answered[at : at + 2], *question[2 * at + 2 : 2 * at + 4])
        ]
        rows, total = len(mask), mask.shape[1]
        tokens = sources.embedding(torch.arange(rows * new).reshape(rows, new) + 5)
        return [tokens, mask.new_ones(rows, total + new), total + torch.arange(new).expand(rows, new), case[3], *past]

    [one] = encoder.cases
    several = start(dict(encoder.inputs), sources.batches[1])
    single = start(dict(one), sources.batches[0])
    return [after(after(several, 2), 3), several, after(several, 1), single, after(single, 1)]
