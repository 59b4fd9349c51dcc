"""A causal language model as one graph for the prompt and for every token after it.

Shapes: B batch, S new tokens, P past tokens, T = P + S, D hidden size, V vocabulary, K key-value heads, E head size.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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

    def empty(self, batch: int) -> list[Tensor]:
        """Return an empty cache: keys and values (B, K, 0, E) of every layer."""
        return [torch.zeros(batch, self.heads, 0, self.head_size) for _ in self.names]


class Decoder(nn.Module):
    """A language model with its cache as plain tensors. Positions are (B, S), or (3, B, S) for M-RoPE."""

    def __init__(self, language_model: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.language_model = language_model
        self.head = head
        self.cache_keyword = cache_keyword(language_model)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Embeddings (B, S, D), mask (B, T), positions, cache (B, K, P, E) -> logits (B, S, V) and cache."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for index in range(0, len(past), 2):
            cache.update(past[index], past[index + 1], index // 2)
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=True,
            **{self.cache_keyword: cache},
        )
        logits = output.logits if self.head is None else self.head(output.last_hidden_state)
        return (logits, *(tensor for layer in cache.layers for tensor in (layer.keys, layer.values)))


def cache_keyword(language_model: nn.Module) -> str:
    """Return a model's keyword for its cache: `cache` since transformers 5.24, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(language_model.forward).parameters else "past_key_values"
