"""GPTQ: round column by column, and let the columns that follow make up for the error (arXiv 2210.17323, algorithm 1).

A pruned weight can only be rounded to zero, as in section 3.5 of SparseGPT (arXiv 2301.00774): what it was given to make up
for goes on to the columns after it. So zeros stay where they are, whatever the pattern. Half of what is passed on reaches
weights that cannot take it; so sweeps follow, in which each kept weight is rounded anew to what is best beside all the
others (cyclic coordinate descent, QuantEase, arXiv 2309.01885, algorithm 1): no step of these raises the error.

Shapes: O out features, I in features, B columns of a block. Inside, weights are transposed: a column is a contiguous row.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vlmc.runtime.kernels.rounding import MOST, Rounded, of_columns, round_to_nearest
from vlmc.toolchain.calibration.statistics import Statistics
from vlmc.toolchain.prune.methods.hessian import inverse_factor

BLOCK = 128
SWEEPS = 3


class Found(NamedTuple):
    """A rounded layer, and its squared output error over the calibration data as a share of the squared outputs.

    `nearest` is that of rounding to nearest; `raised_damping` the damping of the Hessian where it had to be raised.
    """

    rounded: Rounded
    error: float
    nearest: float
    raised_damping: float | None


def gptq(weight_OI: Tensor, statistics: Statistics, span: int) -> Found:
    """Round a float32 weight to 8 bits; `span` columns share a scale, which is that of rounding to nearest.

    An output whose error did not fall is rounded to nearest.

    Raises:
        InputError: `span` is no multiple of 32.
        CheckFailed: the Hessian cannot be factored even with strong damping.
    """
    assert statistics.hessian_II is not None
    factor_II, raised = statistics.of_hessian(inverse_factor)
    nearest = round_to_nearest(weight_OI.cpu().numpy(), span)
    steps_OI = torch.from_numpy(of_columns(nearest.scales_OS, span, weight_OI.shape[1])).to(weight_OI.device)
    plain_OI = torch.from_numpy(nearest.whole_OI).to(weight_OI)
    whole_OI = _swept(weight_OI, _compensated(weight_OI, steps_OI, factor_II), steps_OI, statistics.hessian_II)
    ours_O1, plain_O1 = (_energy(it * steps_OI - weight_OI, statistics.hessian_II) for it in (whole_OI, plain_OI))
    better_O1 = ours_O1 < plain_O1
    chosen_OI = torch.where(better_O1, whole_OI, plain_OI).to(torch.int8)
    all_of_it = float(_energy(weight_OI, statistics.hessian_II).sum()) or 1.0
    error = float(torch.minimum(ours_O1, plain_O1).sum()) / all_of_it
    rounded = Rounded(chosen_OI.cpu().numpy(), nearest.scales_OS, span)
    return Found(rounded, error, float(plain_O1.sum()) / all_of_it, raised)


def _compensated(weight_OI: Tensor, steps_OI: Tensor, factor_II: Tensor) -> Tensor:
    """Return whole numbers (O, I), zero where the weight is."""
    weight_IO, most_IO = weight_OI.T.clone(memory_format=torch.contiguous_format), (weight_OI.T != 0) * float(MOST)
    steps_IO, whole_IO = steps_OI.T.contiguous(), torch.zeros_like(weight_IO)
    for start in range(0, len(weight_IO), BLOCK):
        block = slice(start, start + BLOCK)
        parts = (weight_IO[block], most_IO[block], steps_IO[block], factor_II[block, block], whole_IO[block])
        weight_IO[block.stop :].addmm_(factor_II[block, block.stop :].T, _round_block(*parts), alpha=-1)
    return whole_IO.T


def _round_block(weight_BO: Tensor, most_BO: Tensor, steps_BO: Tensor, factor_BB: Tensor, whole_BO: Tensor) -> Tensor:
    """Fill in a block's whole numbers; return the scaled errors (B, O) that the columns after it must absorb.

    `most_BO` is how large they may be: 0 for a weight that is pruned.
    """
    error_BO = torch.empty_like(weight_BO)
    for column, (weight_O, most_O, step_O) in enumerate(zip(weight_BO, most_BO, steps_BO, strict=True)):
        whole_O = torch.where(step_O > 0, weight_O / step_O, 0.0).round_().clamp_(-most_O, most_O)
        whole_BO[column] = whole_O
        error_BO[column] = (weight_O - whole_O * step_O) / factor_BB[column, column]
        weight_BO[column + 1 :].addr_(factor_BB[column, column + 1 :], error_BO[column], alpha=-1)
    return error_BO


def _swept(weight_OI: Tensor, whole_OI: Tensor, steps_OI: Tensor, hessian_II: Tensor) -> Tensor:
    """Return whole numbers (O, I) whose squared output error is no larger, zero where the weight is."""
    weight_IO, whole_IO, steps_IO = (it.T.contiguous() for it in (weight_OI, whole_OI, steps_OI))
    most_IO = (weight_IO != 0) * float(MOST)
    for _ in range(SWEEPS):
        gradient_IO = hessian_II @ (whole_IO * steps_IO - weight_IO)
        for start in range(0, len(weight_IO), BLOCK):
            block = slice(start, start + BLOCK)
            parts = (whole_IO[block], most_IO[block], steps_IO[block], hessian_II[block, block])
            gradient_IO.addmm_(hessian_II[:, block], _descend(*parts, gradient_IO[block].clone()))
    return whole_IO.T


def _descend(whole_BO: Tensor, most_BO: Tensor, steps_BO: Tensor, hessian_BB: Tensor, gradient_BO: Tensor) -> Tensor:
    """Round a block's weights anew in place, one column after the other; return by how much the weights changed (B, O).

    `gradient_BO` is half of the error's gradient, and is spent.
    """
    change_BO = torch.zeros_like(gradient_BO)
    for column, (whole_O, most_O, step_O) in enumerate(zip(whole_BO, most_BO, steps_BO, strict=True)):
        curvature = hessian_BB[column, column]
        if curvature <= 0:
            continue  # an input that was never active
        shift_O = torch.where(step_O > 0, gradient_BO[column] / (curvature * step_O), 0.0)
        found_O = (whole_O - shift_O).round_().clamp_(-most_O, most_O)
        change_BO[column] = (found_O - whole_O) * step_O
        whole_BO[column] = found_O
        gradient_BO.addr_(hessian_BB[column], change_BO[column])
    return change_BO


def _energy(change_OI: Tensor, hessian_II: Tensor) -> Tensor:
    """Return the squared outputs of a weight over the calibration data (O, 1)."""
    return (change_OI @ hessian_II * change_OI).sum(1, keepdim=True)
