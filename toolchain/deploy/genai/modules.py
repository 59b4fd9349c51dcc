"""What onnxruntime-genai wants inside the graphs that vlmc's own runtime computes beside them.

Shapes: B batch, S new tokens, D hidden size, N patches, G images, F image features.
"""

import torch
from torch import Tensor, nn

from vlmc.runtime.deployment import Patches
from vlmc.toolchain.deploy.causal import BlockDecoder


class GridTower(nn.Module):
    """A vision encoder over patches that is told the images' sizes, and computes from them where each patch lies."""

    def __init__(self, tower: nn.Module, layout: Patches) -> None:
        super().__init__()
        self.tower, self.merge, self.window = tower, layout.merge, layout.window

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Pixels (N, V), frames, rows and columns of patches of each image (G, 3) -> features (F, D)."""
        order_N = torch.arange(pixel_values.shape[0], device=pixel_values.device)
        sizes_G = image_grid_thw.prod(1)
        ends_G = sizes_G.cumsum(0)
        numbers_N = (order_N[:, None] >= ends_G).sum(1)
        grids_N3 = image_grid_thw[numbers_N]
        inside_N = (order_N - (ends_G - sizes_G)[numbers_N]) % (grids_N3[:, 1] * grids_N3[:, 2])
        token_N, part_N = inside_N // self.merge**2, inside_N % self.merge**2
        across_N = grids_N3[:, 2] // self.merge
        rows_N = token_N // across_N * self.merge + part_N // self.merge
        columns_N = token_N % across_N * self.merge + part_N % self.merge
        images_N = windows_N = order_N - inside_N  # a frame's first patch: its number, and the first of its windows' numbers
        if self.window is not None:
            side = self.merge * self.window
            wide_N = (grids_N3[:, 2] + side - 1) // side
            windows_N = images_N + rows_N // side * wide_N + columns_N // side
        features: Tensor = self.tower(pixel_values, torch.stack([rows_N, columns_N], -1), images_N, windows_N)
        return features


class MergedEmbedding(nn.Module):
    """A token embedding that puts image features in the places of the image tokens."""

    def __init__(self, embedding: nn.Module, image_token_id: int) -> None:
        super().__init__()
        self.embedding, self.image_token_id = embedding, image_token_id

    def forward(self, input_ids: Tensor, image_features: Tensor) -> Tensor:
        """Tokens (B, S), features (F, D) or (images, tokens, D), none after the prompt -> embeddings (B, S, D)."""
        shown_BS = input_ids == self.image_token_id
        embeds_BSD: Tensor = self.embedding(torch.where(shown_BS, 0, input_ids))
        features_FD = image_features.reshape(-1, image_features.shape[-1])
        none_1D = torch.zeros_like(embeds_BSD[0, :1])
        numbers_BS = shown_BS.reshape(-1).cumsum(0).reshape(shown_BS.shape)  # from 1; 0 is no feature
        placed_BSD = torch.cat([none_1D, features_FD])[torch.where(shown_BS, numbers_BS, 0)]
        return torch.where(shown_BS[..., None], placed_BSD, embeds_BSD)


class TokenBlockDecoder(nn.Module):
    """A decoder whose images' tokens see each other (Gemma 3), and which finds them among the tokens themselves."""

    def __init__(self, decoder: BlockDecoder, image_token_id: int) -> None:
        super().__init__()
        self.decoder, self.image_token_id = decoder, image_token_id

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, input_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """As `BlockDecoder.forward`, and the tokens (B, S) in place of their blocks."""
        shown_BS = input_ids == self.image_token_id
        before_BS = nn.functional.pad(shown_BS[:, :-1].long(), (1, 0)).bool()
        numbers_BS = (shown_BS & ~before_BS).cumsum(1) - 1
        blocks_BS = torch.where(shown_BS, numbers_BS, -1)
        found: tuple[Tensor, ...] = self.decoder(inputs_embeds, attention_mask, position_ids, blocks_BS, *past)
        return found
