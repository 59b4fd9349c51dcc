"""Vision encoders as graphs: the tower and what lies between it and the language model, with nothing fixed by tracing.

Shapes: X images or tiles, C channels, H height, W width, N patches or image tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn


class ProjectedTower(nn.Module):
    """LLaVA: tower, then projector; `get_image_features` would fix the batch size in the graph."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.model.vision_tower
        self.projector = model.model.multi_modal_projector
        layer = model.config.vision_feature_layer
        self.layers = [layer] if isinstance(layer, int) else list(layer)
        self.first = 1 if model.config.vision_feature_select_strategy == "default" else 0  # 1 drops the class token

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (X, C, H, W) -> image features (X, N, D)."""
        states = self.tower(pixel_values, output_hidden_states=True).hidden_states
        features: Tensor = self.projector(torch.cat([states[layer][:, self.first :] for layer in self.layers], -1))
        return features


class QueryingTower(nn.Module):
    """BLIP-2: tower, Q-Former with learned queries, projection."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.vision_model
        self.query_tokens = model.query_tokens
        self.qformer = model.qformer
        self.projection = model.language_projection

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (X, C, H, W) -> image features (X, N, D)."""
        patches = self.tower(pixel_values).last_hidden_state
        queries = self.query_tokens.expand(patches.shape[0], -1, -1)
        seen = torch.ones(patches.shape[:-1], dtype=torch.long, device=patches.device)
        output = self.qformer(query_embeds=queries, encoder_hidden_states=patches, encoder_attention_mask=seen)
        features: Tensor = self.projection(output.last_hidden_state)
        return features


class ShuffledTower(nn.Module):
    """InternVL: tower, pixel shuffle and projector, over independent tiles."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.model.vision_tower
        self.projector = model.model.multi_modal_projector
        self.ratio = float(model.config.downsample_ratio)
        self.layer = int(model.config.vision_feature_layer)
        self.first = 1 if model.config.vision_feature_select_strategy == "default" else 0

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels of tiles (X, C, H, W) -> image features (X, N, D)."""
        output = self.tower(pixel_values=pixel_values, output_hidden_states=self.layer != -1)
        states = output.last_hidden_state if self.layer == -1 else output.hidden_states[self.layer]
        features: Tensor = self.projector(shuffle(states[:, self.first :], self.ratio))
        return features


class ConnectedTower(nn.Module):
    """Idefics3 and SmolVLM: tower and connector, over real tiles: those that only pad a batch are dropped before."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.model.vision_model
        self.connector = model.model.connector

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels of tiles (X, C, H, W) -> image features (X, N, D)."""
        features: Tensor = self.connector(self.tower(pixel_values=pixel_values).last_hidden_state)
        return features


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
            states_ND = states_ND + self._attend(block.attn, block.norm1(states_ND), angles, masks[index in self.whole])
            states_ND = states_ND + block.mlp(block.norm2(states_ND))
        features: Tensor = self.tower.merger(states_ND)
        return features

    def _attend(self, attention: Any, states_ND: Tensor, angles: tuple[Tensor, ...], mask_NN: Tensor) -> Tensor:
        count = states_ND.shape[0]
        query, key, value = attention.qkv(states_ND).reshape(count, 3, attention.num_heads, -1).unbind(1)
        query, key = (_turn(part, *angles) for part in (query, key))
        query, key, value = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, mask_NN, scale=attention.scaling)
        projected: Tensor = attention.proj(mixed.squeeze(0).transpose(0, 1).reshape(count, -1))
        return projected


def shuffle(states_XND: Tensor, ratio: float) -> Tensor:
    """Move neighbouring patches of a square image into the channels: (X, N, D) -> (X, N * ratio^2, D / ratio^2)."""
    count, width = states_XND.shape[1:]
    side, block = int(count**0.5), round(1 / ratio)
    rows = states_XND.reshape(-1, side, side // block, width * block).transpose(1, 2)
    cells = rows.reshape(-1, side // block, side // block, width * block * block).transpose(1, 2)
    return cells.reshape(-1, (side // block) ** 2, width * block * block)


def _same(numbers_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask (N, N) to add to the attention scores: 0 between equal numbers, the type's lowest value elsewhere."""
    apart = (numbers_N[:, None] != numbers_N[None]).to(dtype)
    return apart * torch.finfo(dtype).min


def _turn(part: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate pairs of channels by their angles, in float32 as the model itself does."""
    first, second = part.float().chunk(2, -1)
    turned = part.float() * cosine.float() + torch.cat([-second, first], -1) * sine.float()
    return turned.to(part.dtype)
