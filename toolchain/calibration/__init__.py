"""Calibration: a walk through a model's blocks that measures the inputs of their layers.

- `walk`: the walk itself, `for block in Calibration(...).walk(blocks, need)`.
- `inputs`: what the samples are for the model; `tokens`: which of their tokens count.
- `passage`: how the samples get through one tower; `gathering` and `statistics`: what is measured on the way.
"""

from vlmc.toolchain.calibration.inputs import Inputs, encode
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.calibration.tokens import Tokens
from vlmc.toolchain.calibration.walk import Block, Calibration

__all__ = ["Block", "Calibration", "Inputs", "Need", "Statistics", "Tokens", "encode"]
