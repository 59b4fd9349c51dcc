"""A layer to prune."""

import torch
from torch import Tensor

from vlmc.toolchain.calibration.statistics import Need, Statistics


def layer(rows: int = 24, columns: int = 64, seed: int = 0) -> tuple[Tensor, Tensor, Statistics]:
    """A weight, correlated inputs of very different sizes, and their statistics."""
    draw = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(rows, columns, generator=draw)
    mixing_II = torch.randn(columns, columns, generator=draw) * torch.logspace(-1, 1, columns)
    x_LI = torch.randn(400, columns, generator=draw) @ mixing_II / columns**0.5
    statistics = Statistics(columns, Need.HESSIAN, torch.device("cpu"))
    for chunk in x_LI.split(100):
        statistics.add(chunk, "layer")
    return weight_OI, x_LI, statistics
