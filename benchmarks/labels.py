"""The words that rows are named with, and found by."""

from typing import Any

STARTS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude"},
    "Wanda": {"method": "wanda"},
    "SparseGPT": {"method": "sparsegpt"},
    "ADMM, reconstructed": {"method": "admm", "reconstruct": True},
    "ADMM, 70 %": {"method": "admm", "target": "70%"},
}
"""What is repaired: label and settings of the pruning, 2:4 where nothing is said."""
DENSE, WANDA, BEST, SPARSEST = "dense", "Wanda", "ADMM, reconstructed", "ADMM, 70 %"
RESSA, REMASKED = "RESSA", "LoRA merged and re-masked"
ACCURACY = "accuracy"

DEMOS = ("demo", "demo-blip2")
"""The models to measure where none are named."""
