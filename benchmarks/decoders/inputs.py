"""What the decoders' graphs are given beside their cache."""

import numpy as np

from decoders.shapes import Decoder
from vlmc.runtime.kernels.packing import Array


def embeddings(decoder: Decoder, tokens: int, length: int) -> dict[str, Array]:
    """Return random embeddings of so many tokens, and the length with those before them."""
    x = np.random.default_rng(tokens).standard_normal((1, tokens, decoder.hidden), np.float32)
    return {"inputs_embeds": x, "seqlens_k": np.array([length - 1], np.int32), "total": np.array(length, np.int32)}
