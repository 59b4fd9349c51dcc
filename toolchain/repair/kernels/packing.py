"""Keep-masks at one bit a weight, and the weight that a masked low-rank update makes.

Shapes: O out features, I in features, R rank, P bytes that hold the bits of I.
"""

from functools import cache

import torch
from torch import Tensor


def pack(mask_OI: Tensor) -> Tensor:
    """Pack a boolean mask (O, I) into bytes (O, ceil(I / 8)), high bit first, as `masks.safetensors` does."""
    padded_OI = torch.nn.functional.pad(mask_OI.to(torch.uint8), (0, -mask_OI.shape[1] % 8))
    places_8 = torch.arange(7, -1, -1, dtype=torch.uint8, device=mask_OI.device)
    return (padded_OI.view(len(padded_OI), -1, 8) << places_8).sum(2, dtype=torch.uint8)


def unpack(packed_OP: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Return the mask (O, I) as ones and zeros of that type."""
    table = _bits(packed_OP.device, dtype)
    return table.index_select(0, packed_OP.reshape(-1).int()).view(len(packed_OP), -1)[:, :columns]


def updated(weight_OI: Tensor, mask_OI: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
    """Return `W + s (B A) * M` (O, I) in the type of the mask; only where gradients are off."""
    product_OI = b_OR.to(mask_OI.dtype) @ a_RI.to(mask_OI.dtype)
    return torch.addcmul(weight_OI.to(mask_OI.dtype), mask_OI, product_OI, value=scale, out=product_OI)


def wide(tensor: Tensor) -> torch.dtype:
    """Return float32, or the tensor's own type where that is wider."""
    return torch.promote_types(tensor.dtype, torch.float32)


@cache
def _bits(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the eight bits of every byte (256, 8), high bit first."""
    places_8 = torch.arange(7, -1, -1, device=device)
    return (torch.arange(256, device=device).unsqueeze(1) >> places_8 & 1).to(dtype)
