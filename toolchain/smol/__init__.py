"""The model `smol`: SmolLM2-135M with a small vision tower, and scenes of emoji and digits that it is asked about."""

from vlmc.toolchain.smol.fetching import NAME, fetch, locate

__all__ = ["NAME", "fetch", "locate"]
