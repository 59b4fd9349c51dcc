"""GPTQ against the paper's update in float64: zeros stay, blocks leave no seam, no output is worse than by nearest."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.prune.material import layer
from vlmc.runtime.errors import InputError
from vlmc.runtime.kernels.packing import pack_rounded, unpack
from vlmc.runtime.kernels.rounding import MOST, of_columns, round_to_nearest, scales_of
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Statistics
from vlmc.toolchain.prune.methods.hessian import DAMPING
from vlmc.toolchain.quantise import gptq as module
from vlmc.toolchain.quantise.gptq import _compensated, _energy, _swept, gptq

TWO_FOUR = SparsityPattern.parse("2:4")


def sparse_layer(columns: int = 64) -> tuple[Tensor, Statistics]:
    weight_OI, _, statistics = layer(columns=columns)
    return weight_OI * TWO_FOUR.mask(weight_OI.abs()), statistics


def obq_reference(weight_OI: Tensor, hessian_II: Tensor, steps_OI: Tensor) -> Tensor:
    """Round by the paper's equation 2, the inverse of what remains made anew for every column, in float64."""
    left_OI, hessian_II, steps_OI = weight_OI.double().clone(), hessian_II.double(), steps_OI.double()
    hessian_II = hessian_II + DAMPING * hessian_II.diagonal().mean() * torch.eye(len(hessian_II))
    whole_OI = torch.zeros_like(left_OI)
    for column in range(left_OI.shape[1]):
        inverse = torch.linalg.inv(hessian_II[column:, column:])
        whole_O = (left_OI[:, column] / steps_OI[:, column]).round().clamp(-MOST, MOST)
        whole_OI[:, column] = torch.where(weight_OI[:, column] == 0, 0.0, whole_O)
        error_O = (left_OI[:, column] - whole_OI[:, column] * steps_OI[:, column]) / inverse[0, 0]
        left_OI[:, column:] -= error_O[:, None] * inverse[0][None]
    return whole_OI


def test_gptq_is_the_papers_update() -> None:
    weight_OI, statistics = sparse_layer()
    assert statistics.hessian_II is not None
    steps_OI = torch.from_numpy(of_columns(scales_of(weight_OI.numpy(), 32), 32, 64))
    factor_II, _ = statistics.of_hessian(module.inverse_factor)
    found_OI = _compensated(weight_OI, steps_OI, factor_II)
    expected_OI = obq_reference(weight_OI, statistics.hessian_II, steps_OI)
    assert (found_OI.double() - expected_OI).abs().max() <= 1  # a tie may fall to either side, and what follows by one
    assert (found_OI.double() == expected_OI).double().mean() > 0.98


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    weight_OI, statistics = sparse_layer()
    whole = gptq(weight_OI, statistics, 32).rounded.whole_OI
    monkeypatch.setattr(module, "BLOCK", 24)
    parted = gptq(weight_OI, statistics, 32).rounded.whole_OI
    assert (whole != parted).mean() < 0.02


def test_a_sweep_ends_where_no_single_weight_can_be_better() -> None:
    weight_OI, statistics = sparse_layer()
    hessian_II = statistics.hessian_II
    assert hessian_II is not None
    steps_OI = torch.from_numpy(of_columns(scales_of(weight_OI.numpy(), 32), 32, 64))
    whole_OI = torch.from_numpy(round_to_nearest(weight_OI.numpy(), 32).whole_OI).float()
    for _ in range(20):
        whole_OI = _swept(weight_OI, whole_OI, steps_OI, hessian_II)
    least = _energy(whole_OI * steps_OI - weight_OI, hessian_II)
    for column in range(64):
        for step in (-1, 1):
            other_OI = whole_OI.clone()
            other_OI[:, column] += step
            allowed = (weight_OI[:, column, None] != 0) & (other_OI[:, column, None].abs() <= MOST)
            worse = _energy(other_OI * steps_OI - weight_OI, hessian_II)
            assert (worse >= least * 0.9999)[allowed].all()


def test_zeros_stay_and_the_error_falls() -> None:
    weight_OI, statistics = sparse_layer()
    found = gptq(weight_OI, statistics, 32)
    assert not found.rounded.whole_OI[weight_OI.numpy() == 0].any()
    assert found.rounded.whole_OI.dtype == np.int8
    assert 0 < found.error < 0.8 * found.nearest
    assert found.raised_damping is None
    packed = pack_rounded(found.rounded)
    np.testing.assert_array_equal(unpack(packed), found.rounded.weight_OI)
    mask = unpack(packed) != 0
    assert not TWO_FOUR.violations(~mask).any()


def test_no_output_is_worse_than_rounded_to_nearest() -> None:
    weight_OI, statistics = sparse_layer()
    assert statistics.hessian_II is not None
    found, nearest = gptq(weight_OI, statistics, 64).rounded, round_to_nearest(weight_OI.numpy(), 64)
    errors = []
    for rounded in (found, nearest):
        change = torch.from_numpy(rounded.weight_OI) - weight_OI
        errors.append((change @ statistics.hessian_II * change).sum(1))
    assert (errors[0] <= errors[1] * 1.0001).all()


def test_a_layer_of_zeros_and_inputs_that_never_ran() -> None:
    weight_OI, statistics = sparse_layer()
    assert statistics.hessian_II is not None
    found = gptq(torch.zeros_like(weight_OI), statistics, 32)
    assert not found.rounded.whole_OI.any()
    assert found.error == 0
    statistics.release()
    statistics.hessian_II = torch.zeros(64, 64)
    np.testing.assert_array_equal(
        gptq(weight_OI, statistics, 32).rounded.whole_OI, round_to_nearest(weight_OI.numpy(), 32).whole_OI
    )


def test_columns_that_cannot_share_a_scale_are_refused() -> None:
    weight_OI, statistics = sparse_layer()
    with pytest.raises(InputError, match="48 columns cannot share a scale: give a multiple of 32"):
        gptq(weight_OI, statistics, 48)
