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


class ArrangedTower(ProjectedTower):
    """LLaVA-NeXT: LLaVA's tower over tiles, whose features are put in the order that the runtime gives."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.newline = model.model.image_newline

    def forward(self, pixel_values: Tensor, feature_places: Tensor) -> Tensor:  # type: ignore[override]
        """Pixels of tiles (X, C, H, W), places among X * N features and one for the end of a row (F) -> features (F, D)."""
        features = super().forward(pixel_values).flatten(0, 1)
        return torch.cat([features, self.newline[None]])[feature_places]


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


class InstructedTower(QueryingTower):
    """InstructBLIP: BLIP-2's, whose Q-Former also reads the question."""

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, qformer_input_ids: Tensor, qformer_attention_mask: Tensor
    ) -> Tensor:
        """Pixels (X, C, H, W), the Q-Former's tokens and their mask (X, S) -> image features (X, N, D)."""
        patches = self.tower(pixel_values).last_hidden_state
        queries = self.query_tokens.expand(patches.shape[0], -1, -1)
        asked = torch.cat([torch.ones_like(queries[..., 0], dtype=torch.long), qformer_attention_mask], 1)
        output = self.qformer(
            input_ids=qformer_input_ids,
            attention_mask=asked,
            query_embeds=queries,
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones(patches.shape[:-1], dtype=torch.long, device=patches.device),
        )
        features: Tensor = self.projection(output.last_hidden_state[:, : queries.shape[1]])
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
    """A tower read at its end, and what connects it: Idefics3, SmolVLM, PaliGemma, Gemma 3."""

    def __init__(self, tower: nn.Module, connector: nn.Module) -> None:
        super().__init__()
        self.tower, self.connector = tower, connector

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels of images or tiles (X, C, H, W) -> image features (X, N, D)."""
        features: Tensor = self.connector(self.tower(pixel_values=pixel_values).last_hidden_state)
        return features


def shuffle(states_XND: Tensor, ratio: float) -> Tensor:
    """Move neighbouring patches of a square image into the channels: (X, N, D) -> (X, N * ratio^2, D / ratio^2)."""
    count, width = states_XND.shape[1:]
    side, block = int(count**0.5), round(1 / ratio)
    rows = states_XND.reshape(-1, side, side // block, width * block).transpose(1, 2)
    cells = rows.reshape(-1, side // block, side // block, width * block * block).transpose(1, 2)
    return cells.reshape(-1, (side // block) ** 2, width * block * block)
