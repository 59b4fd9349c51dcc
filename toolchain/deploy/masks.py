"""Attention masks of a language model, for rows that are padded anywhere, windows, and blocks seen in both directions.

transformers counts places in the cache, which are a row's positions only where nothing is padded; here a row's own tokens
are counted. Shapes: B batch, S new tokens, T past and new tokens, or the cache's room, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor

SLIDING, FULL = "sliding_attention", "full_attention"


def has_window(config: Any) -> bool:
    """Whether some of a language model's layers see only the last tokens."""
    kinds = getattr(config, "layer_types", None)
    return getattr(config, "sliding_window", None) is not None and (kinds is None or SLIDING in kinds)


def attention_masks(
    config: Any,
    mask_BT: Tensor,
    embeds_BSD: Tensor,
    blocks_BS: Tensor | None = None,
    *,
    whole_blocks: bool = False,
    write_B: Tensor | None = None,
) -> Tensor | dict[str, Tensor]:
    """Return what is added to the attention scores (B, 1, S, T): by kind of layer, or one where all are of a kind.

    Tokens with the same number in `blocks_BS`, other than -1, see each other; in layers with a window only as far as that
    reaches, except with `whole_blocks`. The new tokens begin in column `write_B` of their row; None: they are the last ones.
    """
    total, new = mask_BT.shape[1], embeds_BSD.shape[1]
    order_T = torch.arange(total, device=mask_BT.device)
    first_B1 = mask_BT.new_full((len(mask_BT), 1), total - new) if write_B is None else write_B[:, None]
    asking_BS = torch.arange(new, device=mask_BT.device) + first_B1
    causal_BST = order_T <= asking_BS[:, :, None]
    together_BST = torch.zeros_like(causal_BST)
    if blocks_BS is not None:
        seen_BT = blocks_BS.gather(1, (order_T - first_B1).clamp(0, new - 1))
        same_BST = (blocks_BS[:, :, None] == seen_BT[:, None]) & (blocks_BS >= 0)[:, :, None]
        together_BST = same_BST & ((order_T >= first_B1) & (order_T < first_B1 + new))[:, None]
    real_BST = mask_BT.bool()[:, None]
    full = (causal_BST | together_BST) & real_BST
    if not has_window(config):
        return _added(full, embeds_BSD.dtype)
    places_BT = mask_BT.cumsum(1)
    near_BST = places_BT[:, None] > places_BT.gather(1, asking_BS)[:, :, None] - config.sliding_window
    within = (causal_BST & near_BST) | together_BST if whole_blocks else (causal_BST | together_BST) & near_BST
    sliding = _added(within & real_BST, embeds_BSD.dtype)
    if getattr(config, "layer_types", None) is None:
        return sliding
    return {FULL: _added(full, embeds_BSD.dtype), SLIDING: sliding}


def _added(allowed_BST: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where attention is allowed, the type's lowest value elsewhere, with a dimension for the heads."""
    zero = torch.zeros((), dtype=dtype, device=allowed_BST.device)
    return torch.where(allowed_BST, zero, torch.finfo(dtype).min).to(dtype)[:, None]
