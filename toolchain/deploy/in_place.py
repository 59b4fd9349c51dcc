"""A key-value cache in buffers that are updated in place, and attention that reads them without copies.

A cache that grows by concatenation is copied whole for every token. Here the graph writes the new tokens into the buffers
(ONNX's TensorScatter, opset 24), and ONNX Runtime makes no copy where input and output are one buffer. Shapes: B batch,
H heads, K key-value heads, S new tokens, T room of the buffers, E head size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

OPSET = 24
"""The first opset with TensorScatter."""
_ATTENTION = "vlmc_grouped"


class InPlace(DynamicCache):  # type: ignore[misc]  # transformers has no types
    """transformers' cache over buffers (B, K, T, E), in which a row's new tokens go to the columns from `write_B` on."""

    def __init__(self, write_B: Tensor, buffers: Sequence[Tensor]) -> None:
        super().__init__()
        self.write_B = write_B
        for index in range(0, len(buffers), 2):
            super().update(buffers[index], buffers[index + 1], index // 2)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        layer = self.layers[layer_idx]
        layer.keys = scattered(layer.keys, key_states, self.write_B)
        layer.values = scattered(layer.values, value_states, self.write_B)
        return layer.keys, layer.values


def scattered(past_BKTE: Tensor, new_BKSE: Tensor, write_B: Tensor) -> Tensor:
    """Return the buffer with each row's new tokens in the columns from `write_B` on: ONNX's TensorScatter."""
    if torch.compiler.is_exporting():
        given = (past_BKTE, new_BKSE, write_B)
        return torch.onnx.ops.symbolic(
            "TensorScatter", given, {"axis": -2}, dtype=past_BKTE.dtype, shape=past_BKTE.shape, version=OPSET
        )
    columns_BS = write_B[:, None] + torch.arange(new_BKSE.shape[2])
    index_BKSE = columns_BS[:, None, :, None].expand_as(new_BKSE)
    return past_BKTE.scatter(2, index_BKSE, new_BKSE)


@contextmanager
def grouped_attention(language_model: nn.Module) -> Iterator[None]:
    """Let a language model's attention read keys and values as they are, not repeated for every head that shares them."""
    configs = [module.config for module in language_model.modules() if isinstance(module, PreTrainedModel)]
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


def _attend(
    module: nn.Module,
    query_BHSE: Tensor,
    key_BKTE: Tensor,
    value_BKTE: Tensor,
    mask_B1ST: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in transformers' form, which torch exports as ONNX's Attention; returns (B, S, H, E).

    Heads that share keys and values become R = H/K x S rows of one head, so that these are read once for all.
    """
    (batch, heads, new, size), shared = query_BHSE.shape, key_BKTE.shape[1]
    rows_BKRE = query_BHSE.reshape(batch, shared, -1, size)
    found_BKRE = F.scaled_dot_product_attention(
        rows_BKRE, key_BKTE, value_BKTE, mask_B1ST.repeat(1, 1, heads // shared, 1), scale=scaling
    )
    return found_BKRE.reshape(batch, heads, new, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(_ATTENTION, _attend)
