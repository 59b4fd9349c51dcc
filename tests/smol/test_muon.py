"""Muon in float32: the updates of `torch.optim.Muon`, which computes them in bfloat16."""

import pytest
import torch

from vlmc.toolchain.smol.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7)])
def test_updates_are_those_of_torch_up_to_the_rounding_of_bfloat16(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = Muon([ours], momentum=0.9, iterations=4)
    reference = torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.0, ns_steps=4)
    mine.param_groups[0]["lr"] = 0.1
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        mine.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved
    assert moved > 0


def test_singular_values_come_near_one() -> None:
    matrix = torch.randn(12, 20, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(matrix, 8))
    assert values.min() > 0.4
    assert values.max() < 1.6


def test_state_goes_on_where_it_was() -> None:
    weight = torch.nn.Parameter(torch.eye(3))
    weight.grad = torch.arange(9.0).view(3, 3)
    optimizer = Muon([weight])
    optimizer.step()
    other = Muon([torch.nn.Parameter(torch.eye(3))])
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[other.param_groups[0]["params"][0]]["momentum_buffer"], 0.05 * weight.grad)
