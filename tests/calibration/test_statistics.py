"""Sums, means and variances of a layer's inputs."""

import pytest
import torch

from vlmc.runtime.errors import InputError
from vlmc.toolchain.calibration.statistics import Need, Statistics


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_inputs_name_the_layer(bad: float) -> None:
    statistics = Statistics(4, Need.DIAGONAL, torch.device("cpu"))
    with pytest.raises(InputError, match=r"blocks\.3\.fc1"):
        statistics.add(torch.tensor([[1.0, bad, 0, 0]]), "blocks.3.fc1")


def test_where_narrow_inputs_overflow_float32_is_named_as_a_remedy() -> None:
    statistics = Statistics(4, Need.DIAGONAL, torch.device("cpu"))
    with pytest.raises(InputError, match=r"the data, or add --precision fp32$"):
        statistics.add(torch.full((1, 4), 1e5).half(), "layer")


def test_means_and_variances_heed_the_tokens_weights() -> None:
    draw = torch.Generator().manual_seed(0)
    x_LI = torch.randn(64, generator=draw) + torch.randn(300, 64, generator=draw) * torch.logspace(-1, 0.5, 64)
    plain, weighed, repeated = (Statistics(64, Need.DIAGONAL, torch.device("cpu")) for _ in range(3))
    for chunk in x_LI.split(100):
        plain.add(chunk, "layer")
    torch.testing.assert_close(plain.mean_I, x_LI.mean(0))
    torch.testing.assert_close(plain.variance_I, x_LI.var(0, correction=0), rtol=1e-3, atol=1e-5)
    counted_L = torch.arange(300) % 3  # absent, once, twice
    weighed.add(x_LI, "layer", counted_L.float())
    repeated.add(x_LI.repeat_interleave(counted_L, dim=0), "layer")
    assert weighed.count == repeated.count == 300
    torch.testing.assert_close(weighed.mean_I, repeated.mean_I)
    torch.testing.assert_close(weighed.variance_I, repeated.variance_I, rtol=1e-3, atol=1e-5)


def test_no_token_at_all_gives_zeros() -> None:
    empty = Statistics(4, Need.DIAGONAL, torch.device("cpu"))
    assert empty.mean_I.tolist() == empty.variance_I.tolist() == [0, 0, 0, 0]
