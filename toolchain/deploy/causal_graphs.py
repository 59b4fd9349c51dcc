"""The graph of a causal language model, and inputs as they come in generation.

Shapes: B batch, S new tokens, P past tokens, T = P + S, D hidden size, L layers with deepstack.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmc.exporters.graphs import OPSET, Axis, GraphSpec
from vlmc.runtime.processing import Batch
from vlmc.toolchain.deploy.causal import BlockDecoder, Cache, Decoder, DeepstackDecoder, MaskedDecoder
from vlmc.toolchain.deploy.masks import has_window
from vlmc.toolchain.deploy.sources import ROWS, Sources, embed

ROOM = 5
"""Columns that the buffers of a cache in place have beside a prompt's in examples."""


def describe(sources: Sources) -> list[GraphSpec]:
    """Describe the decoder; see `Decoder.forward` for the shapes. Its cases have caches that the model itself made."""
    config: Any = sources.model.config
    cache = Cache.of(config.get_text_config(decoder=True))
    module = _decoder(sources).eval()
    past = [f"past_key_values.{name}" for name in cache.names]
    from vlmc.toolchain.deploy.in_place import OPSET as IN_PLACE

    names = ("inputs_embeds", "attention_mask", "position_ids", *module.before_cache, *past)
    inputs = [dict(zip(names, case.tensors, strict=True)) for case in _cases(sources, module, cache)]
    sequence, batch = sources.sequence, 1 if sources.deployment.positions == "m-rope" else 0
    spec = GraphSpec(
        name=sources.deployment.graphs.decoder,
        module=module,
        inputs=inputs[0],
        outputs=("logits", *(f"present.{name}" for name in cache.names)),
        axes={
            "inputs_embeds": ROWS | {1: sequence},
            "attention_mask": ROWS | {1: _total(sources)},
            "position_ids": {batch: ROWS[0], batch + 1: sequence},
        }
        | {name: ROWS | {1: sequence} for name in module.extra}
        | {name: ROWS for name in module.before_cache if name not in module.extra}
        | {name: ROWS | {2: _past(sources, module)} for name in past},
        cases=inputs[1:],
        opset=IN_PLACE if module.in_place else OPSET,
    )
    return [spec]


def _total(sources: Sources) -> Axis:
    return Axis("total", 1, sources.optimum, 2 * sources.limit)


def _past(sources: Sources, module: Decoder) -> Axis:
    """Return the columns of the cache: those of past tokens, or the whole room of its buffers."""
    return _total(sources) if module.in_place else Axis("past", 0, 0, sources.limit)


def _decoder(sources: Sources) -> Decoder:
    wiring, fixed = sources.wiring, sources.deployment.cache == "in-place"
    language: Any = wiring.language
    if wiring.deepstack:
        return DeepstackDecoder(language, wiring.head, in_place=fixed)
    if wiring.prefix_mask:
        whole = wiring.prefix_mask == "prompt"
        return BlockDecoder(language, wiring.head, whole_blocks=whole, in_place=fixed)
    masked = fixed or has_window(language.config)
    return (MaskedDecoder if masked else Decoder)(language, wiring.head, in_place=fixed)


@dataclass(frozen=True)
class _Case:
    """One step: embeddings, mask, positions, what a decoder reads beside them, where it writes in place, the cache."""

    embeds: Tensor
    mask: Tensor
    positions: Tensor
    extra: list[Tensor]
    write: list[Tensor]
    past: list[Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        """All of it, in the order of the decoder's arguments."""
        return [self.embeds, self.mask, self.positions, *self.extra, *self.write, *self.past]

    def after(self, module: Decoder, new: int) -> "_Case":
        """Return the step after this one, with so many tokens."""
        asked = self.mask[:, : self.embeds.shape[1]]
        last = (self.positions * asked).amax((0, 2) if self.positions.ndim == 3 else 1)
        following = last[:, None] + 1 + torch.arange(new)
        following = following.expand(3, -1, -1) if self.positions.ndim == 3 else following
        resting = [torch.full_like(one[:, :new], 0 if one.is_floating_point() else -1) for one in self.extra]
        past = list(module(*self.tensors)[1:])
        embeds, mask = self.embeds[:, :new].contiguous(), self._longer(new)
        write = [self.mask.sum(1)] if module.in_place else []
        return _Case(embeds, mask, following.contiguous(), resting, write, past)

    def _longer(self, new: int) -> Tensor:
        """Return the mask with so many more tokens: after the others, or, in place, after those of each row."""
        ones = self.mask.new_ones(len(self.mask), new)
        if not self.write:
            return torch.cat([self.mask, ones], 1)
        return self.mask.scatter(1, self.mask.sum(1, keepdim=True) + torch.arange(new), ones)


@torch.no_grad()
def _cases(sources: Sources, module: Decoder, cache: Cache) -> list[_Case]:
    """Return inputs as in generation: prompts, the token after them, several tokens at once, padded rows.

    No row begins with a masked token: torch and ONNX Runtime need not agree on a row that attends to nothing.
    """

    def prompt(batch: Batch) -> _Case:
        embeds, deep = embed(sources, batch)
        mask, positions = torch.from_numpy(batch.mask_BS), torch.from_numpy(batch.positions)
        extra = [torch.from_numpy(batch.extras[name]) for name in module.extra if name in batch.extras]
        extra += [] if deep is None else [deep]
        if not module.in_place:
            return _Case(embeds, mask, positions, extra, [], cache.empty(len(mask)))
        write, room = [mask.new_zeros(len(mask))], mask.shape[1] + ROOM
        return _Case(embeds, F.pad(mask, (0, ROOM)), positions, extra, write, cache.empty(len(mask), room))

    one, several = (prompt(batch) for batch in sources.batches[:2])
    return [several.after(module, 3), one, one.after(module, 1), several, several.after(module, 1)]
