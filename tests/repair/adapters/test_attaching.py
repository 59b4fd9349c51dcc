"""SparseLoRA and LoRA layers, and putting them on a model and off it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import pico
from tests.repair import material
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.repair.adapters import Adapters, attach
from vlmc.toolchain.repair.methods import AdapterSpec, LoRA, SparseLoRA

MASK_OI = SparsityPattern.parse("2:4").mask(torch.rand(8, 16, generator=torch.Generator().manual_seed(0)))


def plan_of(mask_OI: Tensor | None) -> AdapterSpec:
    return AdapterSpec(LoRA if mask_OI is None else SparseLoRA, 2, 6.0, mask_OI)


def layer(mask_OI: Tensor | None, dtype: torch.dtype = torch.float32) -> tuple[nn.Sequential, Adapters]:
    """Return a model of one pruned Linear with a trained-looking adapter of rank 2 and scale 3 on it."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 8)).to(dtype)
    if mask_OI is not None:
        model[0].weight.data.mul_(mask_OI)
    adapters = attach(model, {"0": plan_of(mask_OI)})
    nn.init.normal_(adapters.layers["0"].lora_B)
    return model, adapters


@pytest.mark.parametrize("mask_OI", [MASK_OI, None])
def test_starts_as_the_linear_itself(mask_OI: Tensor | None) -> None:
    linear, x = nn.Linear(16, 8), torch.randn(3, 5, 16)
    before = linear(x)
    if mask_OI is not None:
        linear.weight.data.mul_(mask_OI)
        before = linear(x)
    model = nn.Sequential(linear)
    attach(model, {"0": plan_of(mask_OI)})
    assert torch.equal(model(x), before)


def test_sparse_update_is_masked_and_scaled() -> None:
    model, adapters = layer(MASK_OI)
    adapted, x = adapters.layers["0"], torch.randn(3, 16)
    weight = adapted.weight + 3.0 * (adapted.lora_B @ adapted.lora_A) * MASK_OI
    torch.testing.assert_close(model(x), x @ weight.T + adapted.bias)
    assert not adapted.merged()[~MASK_OI].any()


def test_plain_update_is_scaled() -> None:
    model, adapters = layer(None)
    adapted, x = adapters.layers["0"], torch.randn(3, 16)
    expected = x @ (adapted.weight + 3.0 * adapted.lora_B @ adapted.lora_A).T + adapted.bias
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(adapted.merged(), adapted.weight + 3.0 * adapted.lora_B @ adapted.lora_A)


def test_gradients_are_those_of_the_formula() -> None:
    """G = (g^T x) * M; dB = s G A^T; dA = s B^T G."""
    model, adapters = layer(MASK_OI, torch.float64)
    adapted = adapters.layers["0"]
    x_LI, g_LO = torch.randn(5, 16, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    (model(x_LI) * g_LO).sum().backward()
    masked_OI = (g_LO.T @ x_LI) * MASK_OI
    torch.testing.assert_close(adapted.lora_B.grad, 3.0 * masked_OI @ adapted.lora_A.detach().T)
    torch.testing.assert_close(adapted.lora_A.grad, 3.0 * adapted.lora_B.detach().T @ masked_OI)


def test_a_kept_weight_of_zero_is_trained() -> None:
    linear = nn.Linear(16, 8)
    linear.weight.data.mul_(MASK_OI)
    row, column = MASK_OI.nonzero()[0].tolist()
    linear.weight.data[row, column] = 0.0
    adapters = attach(nn.Sequential(linear), {"0": AdapterSpec(SparseLoRA, 2, 6.0, MASK_OI)})
    nn.init.normal_(adapters.layers["0"].lora_B)
    assert adapters.layers["0"].merged()[row, column] != 0


def test_first_weights_follow_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    plan = {"0": plan_of(None)}
    first, again, other = (attach(nn.Sequential(nn.Linear(16, 8)), plan, seed) for seed in (1, 1, 2))
    assert torch.equal(first.layers["0"].lora_A, again.layers["0"].lora_A)
    assert not torch.equal(first.layers["0"].lora_A, other.layers["0"].lora_A)
    assert first.layers["0"].lora_A.abs().max() <= 16**-0.5
    torch.random.set_rng_state(state)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"7": AdapterSpec(LoRA, 2, 2.0)}, "a layer 7, which this model lacks"),
        ({"1": AdapterSpec(LoRA, 2, 2.0)}, "1, which is not a Linear in this model but a ReLU"),
        ({"0": AdapterSpec(SparseLoRA, 2, 2.0, MASK_OI.T)}, r"mask of 0 is \(16, 8\), its weight \(8, 16\)"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan: dict[str, AdapterSpec], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attach(nn.Sequential(nn.Linear(16, 8), nn.ReLU()), plan)


@pytest.mark.integration
@pytest.mark.parametrize("family", pico.USUAL)
def test_off_and_detach_give_the_model_as_it_was(family: str, tmp_path: Path) -> None:
    source = material.dense(family, tmp_path / "dense")
    model = source.load()
    feed = material.encoder(source).question(material.samples(1)[0])
    names = dict(model.named_parameters()).keys()
    before = model(**feed).logits
    sparse = {
        name: AdapterSpec(SparseLoRA, 2, 6.0, torch.ones_like(model.get_submodule(name).weight, dtype=torch.bool))
        for name in source.family.prunable(model)
    }
    plain = {name: AdapterSpec(LoRA, 2, 6.0) for name in source.family.adaptable(model)}
    adapters = attach(model, sparse | plain)
    assert {type(one) for one in adapters.layers.values()} == {SparseLoRA, LoRA}
    for one in adapters.layers.values():
        nn.init.normal_(one.lora_B)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == adapters.parameters().keys() == dict(model.named_parameters()).keys() - names
    assert not torch.equal(model(**feed).logits, before)
    with adapters.off():
        assert torch.equal(model(**feed).logits, before)
    assert not torch.equal(model(**feed).logits, before)
    adapters.detach()
    assert torch.equal(model(**feed).logits, before)
    assert dict(model.named_parameters()).keys() == names
