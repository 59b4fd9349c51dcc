"""The words that rows are named with, and found by."""

from vlmc.toolchain.settings import PruneMethod

METHODS: dict[PruneMethod, str] = {"magnitude": "magnitude", "wanda": "Wanda", "sparsegpt": "SparseGPT"}
DENSE, WANDA = "dense", METHODS["wanda"]
RESSA, REMASKED = "RESSA", "LoRA merged and re-masked"
DEFAULTS = "defaults"
ACCURACY = "accuracy"
