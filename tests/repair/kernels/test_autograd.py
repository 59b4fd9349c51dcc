"""The masked linear map: its gradient is autograd's through the masked weight, and nothing large is kept for it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from vlmc.toolchain.repair.kernels import autograd, masked_linear, pack, tiled, unpack

SCALE = 1.5
SHAPES = [(24, 40), (64, 128), (19, 13)]
"""Several tiles once TILE is small; the demo's; rows and columns that fill no byte."""


class Case:
    """A layer's tensors; A, B and x ask for gradients, W does not."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype = torch.float32) -> None:
        draw = torch.Generator().manual_seed(rows)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)

        self.weight_OI, self.bias_O, self.mask_OI = normal(rows, columns), normal(rows), normal(rows, columns) > 0
        self.x = normal(2, 5, columns).requires_grad_()
        self.a_RI, self.b_OR = normal(3, columns).requires_grad_(), normal(rows, 3).requires_grad_()
        self.grad = normal(2, 5, rows)

    def ours(self, x: Tensor) -> Tensor:
        return masked_linear(x, self.weight_OI, self.bias_O, pack(self.mask_OI), self.a_RI, self.b_OR, SCALE)

    def autograd(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_OI + SCALE * (self.b_OR @ self.a_RI) * self.mask_OI, self.bias_O)

    def gradients(self, y: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, (self.x, self.a_RI, self.b_OR), self.grad.to(y.dtype))


def relative(found: Tensor, true: Tensor) -> float:
    found, true = found.detach().double(), true.detach().double()
    return float((found - true).norm() / true.norm())


@pytest.fixture(autouse=True, params=[128, tiled.TILE], ids=["many tiles", "one tile"])
def _tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE", request.param)
    monkeypatch.setattr(tiled, "NARROWEST", 8)


@pytest.mark.parametrize("shape", SHAPES)
def test_packing_goes_there_and_back(shape: tuple[int, int]) -> None:
    mask_OI = Case(*shape).mask_OI
    packed_OP = pack(mask_OI)
    assert packed_OP.shape == (shape[0], -(-shape[1] // 8))
    assert packed_OP.dtype == torch.uint8
    assert torch.equal(unpack(packed_OP, shape[1], torch.bool), mask_OI)


def test_tiles_begin_at_whole_bytes_and_are_never_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "NARROWEST", 16)
    assert list(tiled._tiles(60, 27)) == [slice(0, 24), slice(24, 48), slice(48, 60)]
    assert list(tiled._tiles(40, 13)) == list(tiled._tiles(40, 0)) == [slice(0, 16), slice(16, 32), slice(32, 40)]


@pytest.mark.integration
def test_gradcheck_in_float64_with_weight_and_bias_trained_too() -> None:
    case = Case(19, 13, torch.float64)
    packed_OP = pack(case.mask_OI)

    def of(x: Tensor, weight_OI: Tensor, bias_O: Tensor, a_RI: Tensor, b_OR: Tensor) -> Tensor:
        return masked_linear(x, weight_OI, bias_O, packed_OP, a_RI, b_OR, SCALE)

    given = (case.x, case.weight_OI.requires_grad_(), case.bias_O.requires_grad_(), case.a_RI, case.b_OR)
    assert torch.autograd.gradcheck(of, given)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 8e-3)])
def test_output_and_gradients_are_autograds(shape: tuple[int, int], dtype: torch.dtype, allowed: float) -> None:
    """Against autograd in float64. Measured in bfloat16: 2.0e-3 to 2.8e-3, where autograd has 2.5e-3 to 3.9e-3."""
    case, exact = Case(*shape, dtype), Case(*shape, dtype)
    for name, value in vars(case).items():
        if value.is_floating_point():
            setattr(exact, name, value.detach().double().requires_grad_(value.requires_grad))
    y, true = case.ours(case.x), exact.autograd(exact.x)
    found = [y, *case.gradients(y)]
    assert {one.dtype for one in found} == {dtype}
    pairs = zip(found, [true, *exact.gradients(true)], strict=True)
    assert max(relative(one, other) for one, other in pairs) < allowed


def test_nothing_is_saved_but_what_is_there_anyway() -> None:
    case, saved = Case(64, 128), []
    packed_OP = pack(case.mask_OI)
    with saved_tensors_hooks(lambda one: saved.append(one.data_ptr()) or one, lambda one: one):
        masked_linear(case.x, case.weight_OI, case.bias_O, packed_OP, case.a_RI, case.b_OR, SCALE)
    held = [case.x, case.weight_OI, packed_OP, case.a_RI, case.b_OR]
    assert saved == [one.data_ptr() for one in held]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_no_bit(reentrant: bool) -> None:
    case = Case(24, 40)
    plain, again = case.ours(case.x), checkpoint(case.ours, case.x, use_reentrant=reentrant)
    parts = (case.x, case.a_RI, case.b_OR)
    plain.backward(case.grad)
    expected = [one.grad for one in parts]
    for one in parts:
        one.grad = None
    again.backward(case.grad)
    assert torch.equal(plain, again)
    assert all(torch.equal(one.grad, other) for one, other in zip(parts, expected, strict=True))


def test_a_checkpointed_maps_product_is_not_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch stops recomputing once it has what the backward pass needs, which is kept before the product is computed."""
    case, made = Case(24, 40), []
    monkeypatch.setattr(autograd, "product", lambda *given, make=autograd.product: made.append(1) or make(*given))
    y = checkpoint(lambda x: case.ours(case.ours(x) @ torch.ones(24, 40)), case.x, use_reentrant=False)
    assert len(made) == 2
    y.backward(case.grad)
    assert len(made) == 3, "the first of the two alone"


@pytest.mark.parametrize("backward_inside", [True, False])
def test_autocast_sets_the_type_of_the_products_alone(backward_inside: bool) -> None:
    case, exact = Case(24, 40), Case(24, 40)
    with torch.autocast("cpu", torch.bfloat16):
        y = case.ours(case.x)
        found = case.gradients(y) if backward_inside else None
    found = found or case.gradients(y)
    assert y.dtype == torch.bfloat16
    assert {one.dtype for one in found} == {torch.float32}
    true = exact.autograd(exact.x)
    pairs = zip([y, *found], [true, *exact.gradients(true)], strict=True)
    assert max(relative(one, other) for one, other in pairs) < 8e-3


def test_only_what_is_asked_for_is_computed() -> None:
    case = Case(24, 40)
    (dx,) = torch.autograd.grad(case.ours(case.x), case.x, case.grad)
    a_RI, b_OR = torch.autograd.grad(case.ours(case.x.detach()), (case.a_RI, case.b_OR), case.grad)
    expected = case.gradients(case.ours(case.x))
    assert all(torch.equal(one, other) for one, other in zip((dx, a_RI, b_OR), expected, strict=True))


def test_gradients_that_are_broadcast_or_strided_are_taken() -> None:
    case = Case(24, 40)
    strided = case.x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    (found,) = torch.autograd.grad(case.ours(strided).sum(), strided)
    (true,) = torch.autograd.grad(case.autograd(case.x).sum(), case.x)
    torch.testing.assert_close(found, true)


def test_no_tokens_give_no_gradient() -> None:
    case = Case(24, 40)
    y = case.ours(case.x[:0])
    assert y.shape == (0, 5, 24)
    assert not torch.autograd.grad(y.sum(), case.a_RI)[0].any()


def test_a_second_derivative_is_refused() -> None:
    case = Case(24, 40)
    (first,) = torch.autograd.grad(case.ours(case.x).square().sum(), case.x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()
