"""T5 as two graphs: the encoder, which also gives each decoder layer's keys and values of the question, and the decoder.

Both are written out where transformers counts tokens in the cache, which are not a row's own in a padded batch. What is
added up from layer to layer is kept in float32: in fp16 it would overflow. Shapes: B batch, S new tokens, T past and new
tokens, C tokens of the question, D hidden size, V vocabulary, K heads, E head size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vlmc.toolchain.deploy.causal import Cache
from vlmc.toolchain.deploy.masks import attention_masks

OWN, QUESTION = "decoder", "encoder"
"""What optimum calls a layer's cache of the answer, and of the question."""


class QuestionEncoder(nn.Module):
    """T5's encoder, and each decoder layer's projections of its output."""

    def __init__(self, t5: Any) -> None:
        super().__init__()
        self.encoder = t5.encoder
        self.looks = nn.ModuleList(block.layer[1].EncDecAttention for block in t5.decoder.block)

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Embeddings (B, C, D), mask (B, C) -> keys and values (B, K, C, E), layer by layer."""
        output = self.encoder(inputs_embeds=inputs_embeds.float(), attention_mask=attention_mask)
        states = output.last_hidden_state
        looks: list[Any] = list(self.looks)
        return tuple(_heads(look, project(states)) for look in looks for project in (look.k, look.v))


class AnswerDecoder(nn.Module):
    """T5's decoder and head; each layer's cache is four tensors, keys and values of the answer and of the question."""

    def __init__(self, t5: Any) -> None:
        super().__init__()
        self.decoder, self.head = t5.decoder, t5.lm_head
        self.scale = t5.config.d_model**-0.5 if t5.config.scale_decoder_outputs else 1.0

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        encoder_attention_mask: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """Embeddings (B, S, D), mask (B, T), positions (B, S), question's mask (B, C), cache -> logits and the answer's."""
        dtype = inputs_embeds.dtype
        mask = attention_masks(self.decoder.config, attention_mask, inputs_embeds)
        assert isinstance(mask, Tensor)  # no layer has a window
        bias = mask + self._bias(attention_mask, position_ids)
        hidden = (1 - encoder_attention_mask[:, None, None].to(dtype)) * torch.finfo(dtype).min
        states, cache = inputs_embeds.float(), []
        for index, block in enumerate(self.decoder.block):
            own, look, feed = block.layer
            keys, values, *question = past[4 * index : 4 * index + 4]
            normal = own.layer_norm(states)
            attention = own.SelfAttention
            keys = torch.cat([keys, _heads(attention, attention.k(normal))], 2)
            values = torch.cat([values, _heads(attention, attention.v(normal))], 2)
            states = states + _attend(attention, normal, [keys, values], bias)
            states = states + _attend(look.EncDecAttention, look.layer_norm(states), question, hidden)
            states = feed(states)
            cache += [keys, values]
        return (self.head(self.decoder.final_layer_norm(states) * self.scale), *cache)

    def _bias(self, mask_BT: Tensor, positions_BS: Tensor) -> Tensor:
        """Return T5's bias for the distance of two tokens, counted in the row's own (B, K, S, T)."""
        attention: Any = self.decoder.block[0].layer[0].SelfAttention
        distance = (mask_BT.cumsum(1) - 1)[:, None] - positions_BS[:, :, None]
        bucket = attention._relative_position_bucket(
            distance,
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        bias: Tensor = attention.relative_attention_bias(bucket).permute(0, 3, 1, 2)
        return bias


def answer_cache(config: Any) -> Cache:
    """Return the size of the decoder's cache."""
    return Cache(config.num_decoder_layers, config.num_heads, config.d_kv)


def cache_names(cache: Cache, *kinds: str) -> list[str]:
    """Return the names of the cache's tensors, `0.decoder.key` and the like, for the kinds `OWN` and `QUESTION`."""
    return [f"{index}.{kind}.{part}" for index in range(cache.layers) for kind in kinds for part in ("key", "value")]


def _heads(attention: Any, states_BSD: Tensor) -> Tensor:
    """Split a projection by heads: (B, K, S, E)."""
    split: Tensor = states_BSD.reshape(*states_BSD.shape[:2], attention.n_heads, attention.key_value_proj_dim)
    return split.transpose(1, 2)


def _attend(attention: Any, states_BSD: Tensor, seen: Sequence[Tensor], bias: Tensor) -> Tensor:
    """Look from states at keys and values; T5 does not scale the scores."""
    query = _heads(attention, attention.q(states_BSD))
    mixed = nn.functional.scaled_dot_product_attention(query, seen[0], seen[1], bias, scale=1.0)
    projected: Tensor = attention.o(mixed.transpose(1, 2).flatten(2))
    return projected
