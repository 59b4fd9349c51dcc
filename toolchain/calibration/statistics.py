"""Statistics of a layer's input, gathered token by token.

Shapes: L tokens, I in features. With `x_LI` the inputs and `w_L` the tokens' weights: squares_I = sum over L of w x^2, the
diagonal of the Hessian H_II = sum over L of w x x^T (SparseGPT writes 2 x x^T; the factor changes neither the mask nor the
compensation); sums_I = sum over L of w x; count = sum over L of w. All are plain sums: those of several runs add up.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import torch
from torch import Tensor

from vlmc.runtime.errors import InputError


class Need(IntEnum):
    """What is needed of the calibration data; more includes less."""

    NOTHING = 0  # no sample runs
    RUNS = 1  # samples run, and nothing is measured
    DIAGONAL = 2
    HESSIAN = 3


Made = TypeVar("Made")


class Statistics:
    """Running sums over the input of one layer, or of several layers that share it."""

    def __init__(self, features: int, need: Need, device: torch.device) -> None:
        self.count = torch.zeros((), device=device)
        self.sums_I = torch.zeros(features, device=device)
        self.squares_I = torch.zeros(features, device=device)
        self.hessian_II = torch.zeros(features, features, device=device) if need is Need.HESSIAN else None
        self._made: dict[Callable[[Tensor], Any], Any] = {}

    def sums(self) -> list[Tensor]:
        """Return the sums, to be added up over processes."""
        small = [self.count, self.sums_I, self.squares_I]
        return small if self.hessian_II is None else [*small, self.hessian_II]

    def add(self, x: Tensor, where: str, weights_L: Tensor | None = None) -> None:
        """Add inputs (..., I), one weight per token; None weighs all alike.

        Raises:
            InputError: the inputs hold NaN or infinity; `where` names the layer.
        """
        x_LI = x.detach().reshape(-1, x.shape[-1]).float()
        weighted_LI = x_LI if weights_L is None else x_LI * weights_L.sqrt()[:, None]
        squares_I = weighted_LI.square().sum(0)
        if not bool(torch.isfinite(squares_I).all()) and not bool(torch.isfinite(x_LI).all()):  # the sums tell, at less cost
            remedy = "" if x.dtype is torch.float32 else ", or add --precision fp32"
            raise InputError(f"calibration gives NaN or infinite inputs at {where}: check the model and the data{remedy}")
        if weights_L is None:
            self.count += len(x_LI)
            self.sums_I += x_LI.sum(0)
        else:
            self.count += weights_L.sum()
            self.sums_I += weights_L @ x_LI
        self.squares_I += squares_I
        if self.hessian_II is not None:
            self.hessian_II.addmm_(weighted_LI.T, weighted_LI)

    def of_hessian(self, make: Callable[[Tensor], Made]) -> Made:
        """Return what a function makes of the Hessian (I, I): computed once for all layers that share this input."""
        if make not in self._made:
            assert self.hessian_II is not None
            self._made[make] = make(self.hessian_II)
        made: Made = self._made[make]
        return made

    def release(self) -> None:
        """Free the Hessian, and what was made of it."""
        self.hessian_II = None
        self._made.clear()

    @property
    def mean_I(self) -> Tensor:
        """The mean of each input; zero where no token counts."""
        return self.sums_I / self.count.clamp_min(torch.finfo(torch.float32).tiny)

    @property
    def variance_I(self) -> Tensor:
        """The variance of each input, over the tokens and their weights."""
        mean_square_I = self.squares_I / self.count.clamp_min(torch.finfo(torch.float32).tiny)
        return (mean_square_I - self.mean_I.square()).clamp_min(0)
