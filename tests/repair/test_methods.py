"""Every method of the table: it starts as the pruned model, never moves what is pruned, and is merged as it was trained."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.repair import material
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.adapters import attach, attach_saved, load_adapter
from vlmc.toolchain.repair.adapters.merging import merged_weight
from vlmc.toolchain.repair.methods import METHODS, SPP, Adapted, AdapterSpec, LoRS, MaskedFull, SparseLoRA
from vlmc.toolchain.settings import RepairMethod
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.repair import Repair

NAMES = sorted(METHODS)
MERGED = [name for name, method in METHODS.items() if method.merged is not None]
MASK_OI = SparsityPattern.parse("2:4").mask(torch.rand(8, 16, generator=torch.Generator().manual_seed(0)))
SCALE = 3.0


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    folder = tmp_path_factory.mktemp("methods")
    return material.pruned(material.dense("llava", folder / "dense"), folder / "pruned")


def layer(kind: type[Adapted], dtype: torch.dtype = torch.float64) -> Adapted:
    """Return an adapter of rank 2 on a pruned layer of 8 x 16, with all that is trained drawn at random."""
    torch.manual_seed(1)
    linear = nn.Linear(16, 8).to(dtype)
    linear.weight.data.mul_(MASK_OI)
    model = nn.Sequential(linear)
    adapted = attach(model, {"0": AdapterSpec(kind, 2, 2 * SCALE, MASK_OI)}).layers["0"]
    for parameter in adapted.trained().values():
        nn.init.normal_(parameter)
    return adapted


def test_the_settings_know_every_method() -> None:
    assert set(get_args(RepairMethod)) == METHODS.keys()
    assert all(name == method.name for name, method in METHODS.items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mask_OI", [MASK_OI, None], ids=["pruned", "dense"])
def test_it_starts_as_the_linear_itself(name: RepairMethod, mask_OI: Tensor | None) -> None:
    linear, x = nn.Linear(16, 8), torch.randn(3, 5, 16)
    if mask_OI is not None:
        linear.weight.data.mul_(mask_OI)
    before, model = linear(x), nn.Sequential(linear)
    kind = METHODS[name].dense if mask_OI is None else METHODS[name].pruned
    adapted = attach(model, {"0": AdapterSpec(kind, 2, 6.0, mask_OI)}).layers["0"]
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-6)
    assert {parameter for parameter in model.parameters() if parameter.requires_grad} == set(adapted.trained().values())


@pytest.mark.parametrize("name", MERGED)
def test_the_merged_weight_is_what_the_layer_computes_and_keeps_the_mask(name: RepairMethod) -> None:
    kind = METHODS[name].merged
    assert kind is not None
    adapted, x = layer(kind), torch.randn(3, 16, dtype=torch.float64)
    merged_OI = merged_weight(adapted, torch.float64)
    torch.testing.assert_close(adapted(x), nn.functional.linear(x, merged_OI, adapted.bias))
    assert not merged_OI[~MASK_OI].any()
    assert (merged_OI != adapted.weight).sum() == MASK_OI.sum()


@pytest.mark.parametrize("kind", [SparseLoRA, SPP, MaskedFull])
def test_gradcheck(kind: type[Adapted]) -> None:
    adapted, x = layer(kind), torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    parts = adapted.trained()

    def of(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(adapted, dict(zip(parts, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(of, (x, *parts.values()))


def test_lors_gradient_is_its_papers_and_not_the_true_one() -> None:
    """Forward as SparseLoRA; dx through W_hat; dB = s g^T (x A^T), dA = s (g B)^T x, without the mask."""
    adapted, x_LI = layer(LoRS), torch.randn(5, 16, dtype=torch.float64, requires_grad=True)
    g_LO = torch.randn(5, 8, dtype=torch.float64)
    a_RI, b_OR = (one.detach() for one in adapted.trained().values())
    hat_OI = adapted.weight + SCALE * (b_OR @ a_RI) * MASK_OI
    y_LO = adapted(x_LI)
    torch.testing.assert_close(y_LO, nn.functional.linear(x_LI, hat_OI, adapted.bias))
    dx, da, db = torch.autograd.grad(y_LO, (x_LI, *adapted.trained().values()), g_LO)
    torch.testing.assert_close(dx, g_LO @ hat_OI)
    torch.testing.assert_close(da, SCALE * b_OR.T @ (g_LO.T @ x_LI.detach()))
    torch.testing.assert_close(db, SCALE * (g_LO.T @ x_LI.detach()) @ a_RI.T)
    true = SCALE * b_OR.T @ (g_LO.T @ x_LI.detach() * MASK_OI)
    assert torch.cosine_similarity(da.flatten(), true.flatten(), 0) < 0.95


def test_spp_multiplies_rows_and_groups_of_columns() -> None:
    adapted = layer(SPP)
    columns_RI, rows_O1 = (one.detach() for one in adapted.trained().values())
    for row in range(8):
        group = 0 if row < 4 else 1
        expected = adapted.weight[row] * (1 + SCALE * rows_O1[row, 0] * columns_RI[group])
        torch.testing.assert_close(adapted.merged()[row], expected)


def test_masked_full_trains_every_kept_weight_and_no_other() -> None:
    adapted = layer(MaskedFull)
    (gradient,) = torch.autograd.grad(adapted(torch.randn(3, 16, dtype=torch.float64)).sum(), adapted.trained().values())
    assert torch.equal(gradient != 0, MASK_OI)


@pytest.mark.slow
@pytest.mark.parametrize("name", MERGED)
def test_repaired_and_merged_it_keeps_its_mask(name: RepairMethod, pruned: SavedModel, tmp_path: Path) -> None:
    """Both stages prove what they promise: the pattern holds, base + adapter and merged model give the same logits."""
    options = material.OPTIONS.model_copy(update={"method": name, "steps": 3})
    adapted = Repair(options, samples=material.samples()).run(pruned, tmp_path / "adapted")
    merged = Merge().run(SavedModel.find(str(adapted.root)), tmp_path / "merged")
    masks = load_masks(merged.root, merged.manifest)
    before, after = load_file(pruned.folder / "model.safetensors"), load_file(merged.root / "model.safetensors")
    changed = 0
    for layer_name, entry in merged.manifest.layers.items():
        assert not after[entry.tensor][~masks[layer_name]].any()
        changed += int((after[entry.tensor] != before[entry.tensor]).any())
    assert changed > len(masks) / 2
    assert merged.manifest.history[1].config["method"] == name


@pytest.mark.integration
def test_lora_is_kept_apart_and_says_so(pruned: SavedModel, tmp_path: Path) -> None:
    options = material.OPTIONS.model_copy(update={"method": "lora", "steps": 2})
    adapted = Repair(options, samples=material.samples()).run(pruned, tmp_path / "adapted")
    assert adapted.manifest.history[-1].measures["kept_apart"]
    assert "kept_apart True" in (adapted.root / "README.md").read_text()
    with pytest.raises(InputError, match="trained by lora, which is kept apart: merged, its update would fill what was"):
        Merge().run(SavedModel.find(str(adapted.root)), tmp_path / "merged")


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_peft_reads_lora_as_what_was_trained(pruned: SavedModel, tmp_path: Path) -> None:
    options = material.OPTIONS.model_copy(update={"method": "lora", "steps": 3})
    adapted = Repair(options, samples=material.samples()).run(pruned, tmp_path / "adapted")
    feed, model = material.encoder(pruned).question(material.samples(1)[0]), pruned.load()
    masks = load_masks(adapted.root, Artifact.open(adapted.root).manifest)
    before = model(**feed).logits
    attach_saved(model, load_adapter(adapted.root / "adapter"), masks)
    theirs = PeftModel.from_pretrained(pruned.load(), adapted.root / "adapter")
    torch.testing.assert_close(theirs(**feed).logits, model(**feed).logits)
    assert not torch.allclose(before, model(**feed).logits)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["spp", "masked-full"])
def test_peft_refuses_what_is_no_lora(name: RepairMethod, pruned: SavedModel, tmp_path: Path) -> None:
    options = material.OPTIONS.model_copy(update={"method": name, "steps": 1})
    adapted = Repair(options, samples=material.samples()).run(pruned, tmp_path / "adapted")
    with pytest.raises(KeyError, match="VLMC"):
        PeftModel.from_pretrained(pruned.load(), adapted.root / "adapter")
