"""Layer-wise ratios: a percentage shared out over a model's blocks, by how much each can lose."""

from vlmc.toolchain.prune.ratios.blocks import allot, gradient_scores, outlier_scores
from vlmc.toolchain.prune.ratios.sharing import percentage

__all__ = ["allot", "gradient_scores", "outlier_scores", "percentage"]
