"""Vision encoders over patches of images in their own size, one after the other; masks keep the images apart.

Shapes: N patches of all images, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn


class PatchTower(nn.Module):
    """Qwen2.5-VL: patches of all images in one sequence; a mask from the patches' image and window numbers guides attention.

    The model itself sorts patches by window and splits them at lengths that tracing would fix.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.model.visual
        self.whole = set(self.tower.fullatt_block_indexes)

    def forward(self, pixel_values: Tensor, patch_places: Tensor, patch_images: Tensor, patch_windows: Tensor) -> Tensor:
        """Pixels (N, C*P*P*2), rows and columns (N, 2), numbers of images and windows (N) -> features (N / merge^2, D)."""
        states_ND = self.tower.patch_embed(pixel_values)
        angles = tuple(part.unsqueeze(-2) for part in self.tower.rotary_pos_emb(states_ND, patch_places))
        masks = {True: _same(patch_images, states_ND.dtype), False: _same(patch_windows, states_ND.dtype)}
        for index, block in enumerate(self.tower.blocks):
            states_ND = run_block(block, states_ND, angles, masks[index in self.whole])
        features: Tensor = self.tower.merger(states_ND)
        return features


class DeepstackTower(nn.Module):
    """Qwen3-VL: patches of all images in one sequence, with learned positions resampled; inner layers give features too."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.model.visual

    def forward(
        self,
        pixel_values: Tensor,
        patch_places: Tensor,
        patch_images: Tensor,
        patch_neighbours: Tensor,
        patch_shares: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As `PatchTower.forward`, and four learned positions and their shares (N, 4).

        Returns features (N / merge^2, D), and those for the decoder's first layers (N / merge^2, layers, D).
        """
        states_ND = self.tower.patch_embed(pixel_values)
        learned = self.tower.pos_embed(patch_neighbours) * patch_shares.to(states_ND.dtype)[..., None]
        states_ND = states_ND + learned.sum(1)
        angles = tuple(part.unsqueeze(-2) for part in self.tower.rotary_pos_emb(states_ND, patch_places))
        mask, deep = _same(patch_images, states_ND.dtype), []
        mergers = dict(zip(self.tower.deepstack_visual_indexes, self.tower.deepstack_merger_list, strict=True))
        for index, block in enumerate(self.tower.blocks):
            states_ND = run_block(block, states_ND, angles, mask)
            if index in mergers:
                deep.append(mergers[index](states_ND))
        return self.tower.merger(states_ND), torch.stack(deep, 1)


def run_block(block: Any, states_ND: Tensor, angles: tuple[Tensor, ...], mask_NN: Tensor) -> Tensor:
    """Run one block of a tower over patches, whose attention is guided by a mask."""
    states_ND = states_ND + _attend(block.attn, block.norm1(states_ND), angles, mask_NN)
    moved: Tensor = states_ND + block.mlp(block.norm2(states_ND))
    return moved


def _attend(attention: Any, states_ND: Tensor, angles: tuple[Tensor, ...], mask_NN: Tensor) -> Tensor:
    count = states_ND.shape[0]
    query, key, value = attention.qkv(states_ND).reshape(count, 3, attention.num_heads, -1).unbind(1)
    query, key = (_turn(part, *angles) for part in (query, key))
    query, key, value = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, mask_NN, scale=attention.scaling)
    projected: Tensor = attention.proj(mixed.squeeze(0).transpose(0, 1).reshape(count, -1))
    return projected


def _same(numbers_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask (N, N) to add to the attention scores: 0 between equal numbers, the type's lowest value elsewhere."""
    apart = (numbers_N[:, None] != numbers_N[None]).to(dtype)
    return apart * torch.finfo(dtype).min


def _turn(part: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate pairs of channels by their angles, in float32 as the model itself does."""
    first, second = part.float().chunk(2, -1)
    turned = part.float() * cosine.float() + torch.cat([-second, first], -1) * sine.float()
    return turned.to(part.dtype)
