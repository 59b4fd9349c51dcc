"""Blocks: the tokens of a prompt that see each other in both directions; every other token sees what came before it.

Shapes: B requests, S tokens.
"""

import numpy as np

from vlmc.runtime.deployment import Deployment
from vlmc.runtime.processing.base import Array


def blocks(ids_BS: Array, deployment: Deployment) -> dict[str, Array]:
    """Return the number of each token's block (B, S), -1 for none, under the name of the decoder's input."""
    if not deployment.prefix_mask:
        return {}
    if deployment.prefix_mask == "prompt":
        return {"block_sequence_ids": np.zeros_like(ids_BS)}
    is_image_BS = ids_BS == deployment.image_token_id
    starts_BS = is_image_BS & ~np.pad(is_image_BS, ((0, 0), (1, 0)))[:, :-1]
    return {"block_sequence_ids": np.where(is_image_BS, starts_BS.cumsum(1) - 1, -1)}
