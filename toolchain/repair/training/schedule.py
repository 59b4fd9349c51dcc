"""The learning rate: its peak for a method and a model, and its schedule."""

import math
from statistics import median

from vlmc.toolchain.repair.adapters import Adapters
from vlmc.toolchain.repair.methods import METHODS
from vlmc.toolchain.settings import RepairSettings


def peak_rate(options: RepairSettings, adapters: Adapters) -> float:
    """Return the peak rate of the options, or the default of the method for layers of this width."""
    return options.lr or METHODS[options.method].rate * default_rate(adapters)


def default_rate(adapters: Adapters) -> float:
    """Return RESSA's peak rate for layers of this width: 5e-3 at the demo's 64 (measured), near the paper's 1e-4 at 4096.

    Between them it falls as 1 / width, as Adam's rate for hidden matrices should (arXiv 2203.03466, table 8).
    """
    return 0.32 / median(layer.weight.shape[1] for layer in adapters.layers.values())


def learning_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Return the rate of a step counted from 0: a linear rise to the peak, then a cosine down to a tenth of it."""
    warm = min(warm_up, steps // 10)
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, steps - 1 - warm)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
