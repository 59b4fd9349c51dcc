"""Sources: a model, its wiring, and real inputs from the family's own processor, from which graphs are described.

Shapes: B batch, S tokens, D hidden size, N image features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlmc.exporters.graphs import Axis
from vlmc.runtime.deployment import Deployment
from vlmc.runtime.errors import InputError
from vlmc.runtime.processing import Batch
from vlmc.toolchain.deploy.wiring import Wiring

LONGEST = 4096
"""The most tokens that engines are built for, if the model takes more."""

ANSWER = 32
"""Tokens of an answer, added to the prompt's for the length that engines are tuned for."""

ROWS = {0: Axis("batch", 1, 1, 8)}


@dataclass(frozen=True)
class Sources:
    """What graph descriptions are made from; `batches` are probes from the runtime's processing.

    The first batch is one question about one image, the second has several rows of different lengths.
    """

    model: nn.Module
    wiring: Wiring
    deployment: Deployment
    batches: Sequence[Batch]

    @property
    def embedding(self) -> nn.Embedding:
        """The language model's token embedding."""
        table: nn.Embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        return table

    @property
    def limit(self) -> int:
        """The most tokens that engines are built for."""
        return min(self.deployment.max_positions or LONGEST, LONGEST)

    @property
    def optimum(self) -> int:
        """The length to tune for: a question about an image, and its answer. Sparse kernels gain only with many rows."""
        prompt: int = self.batches[0].ids_BS.shape[1]
        return min(self.limit, prompt + ANSWER)

    @property
    def sequence(self) -> Axis:
        """The tokens of a prompt or an answer."""
        return Axis("sequence", 1, self.optimum, self.limit)


def image_free(sources: Sources, batch: Batch) -> Tensor:
    """Return a batch's tokens (B, S), 0 for those of images, which need not be in the table."""
    return torch.from_numpy(np.where(batch.ids_BS == sources.deployment.image_token_id, 0, batch.ids_BS))


def embed(sources: Sources, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Return the embeddings (B, S, D) of a batch's tokens, with the images' features in place of theirs.

    With deepstack, the features for the first layers (B, S, layers, D) too.
    """
    wanted = list(signature(sources.wiring.vision.forward).parameters)
    embeds_BSD: Tensor = sources.embedding(image_free(sources, batch)).detach()
    found = sources.wiring.vision.eval()(**tensors(batch.vision, wanted))
    features, deep = found if sources.wiring.deepstack else (found, None)
    is_image = torch.from_numpy((batch.ids_BS == sources.deployment.image_token_id) & batch.mask_BS.astype(bool))
    embeds_BSD[is_image] = features.reshape(-1, features.shape[-1])
    if deep is None:
        return embeds_BSD, None
    placed = embeds_BSD.new_zeros(*is_image.shape, *deep.shape[1:])
    placed[is_image] = deep
    return embeds_BSD, placed


def tensors(arrays: Mapping[str, np.ndarray[Any, Any]], wanted: Sequence[str]) -> dict[str, Tensor]:
    """Return the arrays of these names as tensors.

    Raises:
        InputError: one is not there.
    """
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise InputError(f"the model's processor returns no {missing[0]}, which its vision encoder needs")
    return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in wanted}
