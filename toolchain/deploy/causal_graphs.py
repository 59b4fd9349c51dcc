"""The graph of a causal language model, and inputs as they come in generation.

Shapes: B batch, S new tokens, P past tokens, T = P + S, D hidden size, L layers with deepstack.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.runtime.processing import Batch
from vlmc.toolchain.deploy.causal import BlockDecoder, Cache, Decoder, DeepstackDecoder, WindowDecoder
from vlmc.toolchain.deploy.masks import has_window
from vlmc.toolchain.deploy.sources import ROWS, Sources, embed


def describe(sources: Sources) -> list[GraphSpec]:
    """Describe the decoder; see `Decoder.forward` for the shapes. Its cases have caches that the model itself made."""
    config: Any = sources.model.config
    cache = Cache.of(config.get_text_config(decoder=True))
    module = _decoder(sources).eval()
    past = [f"past_key_values.{name}" for name in cache.names]
    names = ("inputs_embeds", "attention_mask", "position_ids", *module.extra, *past)
    inputs = [dict(zip(names, case.tensors, strict=True)) for case in _cases(sources, module, cache)]
    sequence, batch = sources.sequence, 1 if sources.deployment.positions == "m-rope" else 0
    spec = GraphSpec(
        name=sources.deployment.graphs.decoder,
        module=module,
        inputs=inputs[0],
        outputs=("logits", *(f"present.{name}" for name in cache.names)),
        axes={
            "inputs_embeds": ROWS | {1: sequence},
            "attention_mask": ROWS | {1: Axis("total", 1, sources.optimum, 2 * sources.limit)},
            "position_ids": {batch: ROWS[0], batch + 1: sequence},
        }
        | {name: ROWS | {1: sequence} for name in module.extra}
        | {name: ROWS | {2: Axis("past", 0, 0, sources.limit)} for name in past},
        cases=inputs[1:],
    )
    return [spec]


def _decoder(sources: Sources) -> Decoder:
    wiring = sources.wiring
    language: Any = wiring.language
    if wiring.deepstack:
        return DeepstackDecoder(language, wiring.head)
    if wiring.prefix_mask:
        return BlockDecoder(language, wiring.head, whole_blocks=wiring.prefix_mask == "prompt")
    return (WindowDecoder if has_window(language.config) else Decoder)(language, wiring.head)


@dataclass(frozen=True)
class _Case:
    """One step: embeddings, mask, positions, what a decoder reads beside them, the cache."""

    embeds: Tensor
    mask: Tensor
    positions: Tensor
    extra: list[Tensor]
    past: list[Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        """All of it, in the order of the decoder's arguments."""
        return [self.embeds, self.mask, self.positions, *self.extra, *self.past]

    def after(self, module: Decoder, new: int) -> "_Case":
        """Return the step after this one, with so many tokens."""
        longer = torch.cat([self.mask, self.mask.new_ones(len(self.mask), new)], 1)
        last = (self.positions * self.mask).amax((0, 2) if self.positions.ndim == 3 else 1)
        following = last[:, None] + 1 + torch.arange(new)
        following = following.expand(3, -1, -1) if self.positions.ndim == 3 else following
        resting = [torch.full_like(one[:, :new], 0 if one.is_floating_point() else -1) for one in self.extra]
        past = list(module(*self.tensors)[1:])
        return _Case(self.embeds[:, :new].contiguous(), longer, following.contiguous(), resting, past)


@torch.no_grad()
def _cases(sources: Sources, module: Decoder, cache: Cache) -> list[_Case]:
    """Return inputs as in generation: prompts, the token after them, several tokens at once, padded rows.

    No row begins with a masked token: torch and ONNX Runtime need not agree on a row that attends to nothing.
    """

    def prompt(batch: Batch) -> _Case:
        embeds, deep = embed(sources, batch)
        mask, positions = torch.from_numpy(batch.mask_BS), torch.from_numpy(batch.positions)
        extra = [torch.from_numpy(batch.extras[name]) for name in module.extra if name in batch.extras]
        return _Case(embeds, mask, positions, [*extra, *([] if deep is None else [deep])], cache.empty(len(mask)))

    one, several = (prompt(batch) for batch in sources.batches[:2])
    return [several.after(module, 3), one, one.after(module, 1), several, several.after(module, 1)]
