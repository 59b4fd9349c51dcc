"""Quantise: from a pruned model to weights in whole numbers, on calibration data, with its zeros where they were.

- `gptq`: how one layer is rounded, by its weight and the statistics of its inputs.
- `model`: the walk over a whole model.
"""

from vlmc.toolchain.quantise.model import Quantised, quantise

__all__ = ["Quantised", "quantise"]
