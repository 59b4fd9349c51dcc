"""A causal language model as one graph for the prompt and for every token after it.

Shapes: B batch, S new tokens, P past tokens, T = P + S, D hidden size, V vocabulary, K key-value heads, E head size. Of a
cache in place, P = T is the room of its buffers.
"""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlmc.runtime.decoder_inputs import WRITE
from vlmc.toolchain.deploy.masks import attention_masks


@dataclass(frozen=True)
class Cache:
    """The size of a language model's key-value cache."""

    layers: int
    heads: int
    head_size: int

    @classmethod
    def of(cls, config: Any) -> "Cache":
        """Read it from a language model's configuration in transformers."""
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size)

    @property
    def names(self) -> list[str]:
        """The names of its tensors in order: `0.key`, `0.value`, `1.key`, ..."""
        return [f"{index}.{kind}" for index in range(self.layers) for kind in ("key", "value")]

    def empty(self, batch: int, room: int = 0) -> list[Tensor]:
        """Return an empty cache: keys and values (B, K, room, E) of every layer."""
        return [torch.zeros(batch, self.heads, room, self.head_size) for _ in self.names]


class Decoder(nn.Module):
    """A language model with its cache as plain tensors. Positions are (B, S), or (3, B, S) for M-RoPE.

    `extra` names the inputs between the positions and the cache. With `in_place` the cache is buffers with room for more
    tokens, before it comes the column (B) where the new tokens of each row begin, and only the last of a row's new tokens
    gets logits (B, 1, V): of a prompt, no others are asked for, and a large vocabulary makes them dear.
    """

    extra: tuple[str, ...] = ()

    def __init__(self, language_model: nn.Module, head: nn.Module | None, *, in_place: bool = False) -> None:
        super().__init__()
        self.language_model = language_model
        self.head = head
        self.in_place = in_place
        self.cache_keyword = cache_keyword(language_model)

    @property
    def before_cache(self) -> tuple[str, ...]:
        """The names of the inputs after the positions, up to the cache."""
        return (*self.extra, WRITE) if self.in_place else self.extra

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Embeddings (B, S, D), mask (B, T), positions, cache (B, K, P, E) -> logits (B, S, V) and cache."""
        return self.run(inputs_embeds, attention_mask, attention_mask, position_ids, past)

    def run(
        self, inputs_embeds: Tensor, mask_BT: Tensor, mask: Any, position_ids: Tensor, past: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Run the language model; `mask` is one that it takes."""
        cache = self.cache(past)
        with self.attention():
            output = self.language_model(
                inputs_embeds=inputs_embeds,
                attention_mask=mask,
                position_ids=position_ids,
                use_cache=True,
                **{self.cache_keyword: cache},
            )
        if self.head is None:
            return (self.asked(output.logits, mask_BT, past), *emptied(cache))
        return (self.head(self.asked(output.last_hidden_state, mask_BT, past)), *emptied(cache))

    def asked(self, states_BSD: Tensor, mask_BT: Tensor, past: Sequence[Tensor]) -> Tensor:
        """Return the states, or logits, of the tokens after which others are chosen: in place, each row's last (B, 1, D)."""
        if not self.in_place:
            return states_BSD
        last_B = mask_BT.sum(1) - past[0] - 1
        return states_BSD.gather(1, last_B[:, None, None].expand(-1, 1, states_BSD.shape[2]))

    def masks(self, mask_BT: Tensor, embeds_BSD: Tensor, past: Sequence[Tensor], **blocks: Any) -> Any:
        """Return the masks of `attention_masks`."""
        write_B = past[0] if self.in_place else None
        return attention_masks(self.language_model.config, mask_BT, embeds_BSD, write_B=write_B, **blocks)

    def cache(self, past: Sequence[Tensor]) -> Any:
        """Return transformers' cache with what follows the inputs before it."""
        if not self.in_place:
            return filled(past)
        from vlmc.toolchain.deploy.in_place import InPlace

        return InPlace(past[0], past[1:])

    def attention(self) -> AbstractContextManager[None]:
        """Return the context in which the language model runs."""
        if not self.in_place:
            return nullcontext()
        from vlmc.toolchain.deploy.in_place import grouped_attention

        return grouped_attention(self.language_model)


class MaskedDecoder(Decoder):
    """A language model that is given its whole masks.

    So layers that see only the last tokens (Mistral, Qwen2) count a row's own, not the cache's; and a cache in place has
    columns after the new tokens.
    """

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        masks = self.masks(attention_mask, inputs_embeds, past)
        return self.run(inputs_embeds, attention_mask, masks, position_ids, past)


class BlockDecoder(Decoder):
    """A language model whose prompts have blocks of tokens that see each other in both directions (PaliGemma, Gemma 3).

    `whole_blocks`: in layers with a window, too, all tokens of a block see each other.
    """

    extra = ("block_sequence_ids",)

    def __init__(
        self, language_model: nn.Module, head: nn.Module | None, *, whole_blocks: bool, in_place: bool = False
    ) -> None:
        super().__init__(language_model, head, in_place=in_place)
        self.whole_blocks = whole_blocks

    def forward(  # type: ignore[override]
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        block_sequence_ids: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """As `Decoder.forward`, and the number of each token's block (B, S), -1 for none."""
        blocks = {"blocks_BS": block_sequence_ids, "whole_blocks": self.whole_blocks}
        masks = self.masks(attention_mask, inputs_embeds, past, **blocks)
        return self.run(inputs_embeds, attention_mask, masks, position_ids, past)


class DeepstackDecoder(Decoder):
    """Qwen3-VL: the first layers add image features of their own, zero for other tokens (deepstack, arXiv 2406.04334).

    The model itself picks the image tokens by a mask, whose number of hits no graph can know.
    """

    extra = ("deepstack_embeds",)

    def forward(  # type: ignore[override]
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, deepstack_embeds: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """As `Decoder.forward`, and the features (B, S, layers, D) to add after each of the first layers."""
        model: Any = self.language_model
        cache, states = self.cache(past), inputs_embeds
        mask = self.masks(attention_mask, inputs_embeds, past)
        angles = model.rotary_emb(inputs_embeds, position_ids)
        keyword = cache_keyword(model.layers[0])
        with self.attention():
            for index, layer in enumerate(model.layers):
                states = layer(states, attention_mask=mask, position_embeddings=angles, **{keyword: cache})
                if index < deepstack_embeds.shape[2]:
                    states = states + deepstack_embeds[:, :, index]
        assert self.head is not None
        return (self.head(model.norm(self.asked(states, attention_mask, past))), *emptied(cache))


class SoftCapped(nn.Module):
    """A head whose logits are kept between -cap and cap (Gemma 2, arXiv 2408.00118)."""

    def __init__(self, head: nn.Module, cap: float) -> None:
        super().__init__()
        self.head, self.cap = head, cap

    def forward(self, states: Tensor) -> Tensor:
        """Hidden states (..., D) -> logits (..., V)."""
        return torch.tanh(self.head(states) / self.cap) * self.cap


def filled(past: Sequence[Tensor]) -> Any:
    """Return transformers' cache with keys and values, which take turns."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for index in range(0, len(past), 2):
        cache.update(past[index], past[index + 1], index // 2)
    return cache


def emptied(cache: Any) -> tuple[Tensor, ...]:
    """Return the keys and values of transformers' cache."""
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def cache_keyword(module: nn.Module) -> str:
    """Return a module's keyword for its cache: `cache` since transformers 5.24, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"
