from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from tests import pico
from vlmc.runtime.artifact import Artifact, Part
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain import data
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.reporting.verification import verify_artifact
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.prune import Prune

pytestmark = pytest.mark.integration

FAMILIES = sorted(pico.USUAL)


def dense(family: str, folder: Path) -> SavedModel:
    return SavedModel.find(str(pico.save(family, folder / "dense")))


def prune(source: SavedModel, out: Path, **options: object) -> Artifact:
    return Prune(PruneSettings(calibration=4, **options)).run(source, out)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", PRUNERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_of_both_towers_holds_and_nothing_else_changed(tmp_path: Path, family: str, method: str) -> None:
    source = dense(family, tmp_path)
    artifact = prune(source, tmp_path / "out", method=method)
    before, after = source.load(), SavedModel.find(str(tmp_path / "out")).load()
    layers = artifact.manifest.layers
    assert set(layers) == set(source.family.prunable(before))
    for name, parameter in after.named_parameters():
        if (layer := name.removesuffix(".weight")) in layers:
            assert SparsityPattern.parse("2:4").holds(parameter.detach())
        else:
            assert torch.equal(parameter, before.get_parameter(name)), name
    assert all(report.violation is None and report.sparsity >= 0.5 for report in verify_artifact(artifact))
    assert layer


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_loads_the_result(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    prune(dense(family, tmp_path), tmp_path / "out")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert model.get_output_embeddings().weight.dtype == torch.float16
    assert AutoProcessor.from_pretrained(tmp_path / "out").tokenizer.eos_token_id == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_later_blocks_are_calibrated_on_pruned_earlier_ones(tmp_path: Path, family: str) -> None:
    source = dense(family, tmp_path)
    artifact = prune(source, tmp_path / "out", method="wanda")
    name = [layer for layer in artifact.manifest.layers if artifact.manifest.layers[layer].part == Part.LANGUAGE][0]
    prefix, inner = name.split("layers.0.")
    name = f"{prefix}layers.1.{inner}"
    saved = load_masks(artifact.root, artifact.manifest)[name]
    dense_model, pruned_model = source.load(), SavedModel.find(str(artifact.root)).load()
    weight_OI = dense_model.get_submodule(name).weight
    assert isinstance(weight_OI, torch.Tensor)

    def mask(model: torch.nn.Module) -> torch.Tensor:
        return PRUNERS["wanda"].prune(weight_OI.detach(), _observe(model, name, source), SparsityPattern(n=2, m=4))[1]

    assert torch.equal(mask(pruned_model), saved)
    assert not torch.equal(mask(dense_model), saved), "the test would pass without block-by-block calibration"


def _observe(model: torch.nn.Module, name: str, source: SavedModel) -> Statistics:
    layer = model.get_submodule(name)
    statistics = Statistics(int(str(layer.in_features)), Need.DIAGONAL, torch.device("cpu"))
    layer.register_forward_pre_hook(lambda module, args: statistics.add(args[0], name))
    encoder = Encoder(source.load_processor(), source.family, model)
    with torch.no_grad():
        statistics.squares_I = torch.zeros_like(statistics.squares_I)
        for sample in data.load("demo", "train", 4):
            model(**encoder.inputs(sample))
    return statistics


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    source = dense("llava", tmp_path)
    one, other = (prune(source, tmp_path / name, method="sparsegpt") for name in ("a", "b"))
    assert (one.root / "manifest.json").read_bytes() == (other.root / "manifest.json").read_bytes()
    other.verify_files()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"vision": "none"}, {Part.LANGUAGE: "2:4"}),
        ({"language": "none"}, {Part.VISION: "2:4"}),
        ({"vision": "4:8", "language": "60%"}, {Part.VISION: "4:8", Part.LANGUAGE: "60%"}),
        ({"target": "1:4"}, {Part.VISION: "1:4", Part.LANGUAGE: "1:4"}),
    ],
)
def test_vision_and_language_apart(tmp_path: Path, options: dict[str, str], parts: dict[Part, str]) -> None:
    artifact = prune(dense("llava", tmp_path), tmp_path / "out", **options)
    assert {layer.part: layer.pattern for layer in artifact.manifest.layers.values()} == parts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "5:4"}, "unknown sparsity '5:4'"),
        ({"vision": "none", "language": "none"}, "nothing to prune"),
        ({"target": "2:7"}, r"not a multiple of the pattern's group: .*layers\.0.*and 27 more; add --allow-dense"),
        ({"target": "2:7", "allow_dense": True}, "nothing to prune: no layer's inputs"),
        ({"tokens": "text", "language": "none"}, "--tokens text weighs tokens of the language model, which is left dense"),
        ({"tokens": "atv", "method": "magnitude"}, "--tokens atv: magnitude uses no calibration tokens: add --refit"),
        ({"data": "nowhere.jsonl"}, "no data set at nowhere.jsonl"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune(dense("llava", tmp_path), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_refit_changes_weights_but_not_the_mask(tmp_path: Path) -> None:
    source = dense("llava", tmp_path)
    plain, refitted = (prune(source, tmp_path / str(refit), method="wanda", refit=refit) for refit in (False, True))
    first = next(iter(plain.manifest.layers))
    masks = [load_masks(one.root, one.manifest)[first] for one in (plain, refitted)]
    assert torch.equal(*masks)
    assert plain.digest != refitted.digest


def test_refuses_to_prune_twice(tmp_path: Path) -> None:
    prune(dense("llava", tmp_path), tmp_path / "out")
    with pytest.raises(InputError, match="already pruned"):
        prune(SavedModel.find(str(tmp_path / "out")), tmp_path / "again")


def language(artifact: Artifact, block: int) -> list[str]:
    """The names of the pruned layers of one of the language model's blocks."""
    layers = artifact.manifest.layers
    return [name for name in layers if layers[name].part is Part.LANGUAGE and f"layers.{block}." in name]


def watched(model: torch.nn.Module, names: list[str], source: SavedModel) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """Run the calibration samples; return, for each, what goes into and comes out of the modules, a row a token."""
    seen: list[dict[str, tuple[Tensor, Tensor]]] = []

    def note(name: str, before: Tensor, after: object) -> None:
        after = after[0] if isinstance(after, tuple) else after
        assert isinstance(after, torch.Tensor)
        seen[-1][name] = before.reshape(-1, before.shape[-1]), after.reshape(-1, after.shape[-1])

    def hook(name: str) -> RemovableHandle:
        module = model.get_submodule(name)
        return module.register_forward_hook(
            lambda _, args, kwargs, out: note(name, (*args, *kwargs.values())[0], out), with_kwargs=True
        )

    handles = [hook(name) for name in names]
    encoder = Encoder(source.load_processor(), source.family, model)
    with torch.no_grad():
        for sample in data.load("demo", "train", 4):
            seen.append({})
            feed = encoder.inputs(sample)
            model(**feed, use_cache=False)
            seen[-1]["visual"] = (feed["input_ids"][0] == model.config.image_token_id,) * 2  # type: ignore[union-attr]
    for handle in handles:
        handle.remove()
    return seen


def chosen(policy: str, visual_T: Tensor, before_TD: Tensor, after_TD: Tensor) -> list[bool]:
    """Which tokens count, by the papers' words, one token after the other."""
    drifts = {
        token: 1 - float(before_TD[token] @ after_TD[token] / before_TD[token].norm() / after_TD[token].norm())
        for token in visual_T.nonzero()[:, 0].tolist()
    }
    count = round(min(1.0, sum(drifts.values()) / len(drifts)) * int((~visual_T).sum())) if policy == "atv" else 0
    most = sorted(drifts, key=lambda token: -drifts[token])[:count]
    return [token in most or not visual for token, visual in enumerate(visual_T.tolist())]


@pytest.mark.slow
@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("policy", ["text", "atv"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_follow_the_tokens_of_the_policy(tmp_path: Path, family: str, policy: str, block: int) -> None:
    """Block 1 is the dense one, run on what the pruned block 0 gives out."""
    source = dense(family, tmp_path)
    artifact = prune(source, tmp_path / "out", tokens=policy, method="wanda")
    model, names = SavedModel.find(str(artifact.root)).load(), language(artifact, block)
    prefix = names[0].rpartition(f"layers.{block}.")[0] + f"layers.{block}"
    model.get_submodule(prefix).load_state_dict(source.load().get_submodule(prefix).state_dict())
    seen = watched(model, [prefix, *names], source)
    counts = [torch.tensor(chosen(policy, one["visual"][0], *one[prefix])) for one in seen]
    masks, differs = load_masks(artifact.root, artifact.manifest), False

    def mask(name: str, rows: list[Tensor]) -> Tensor:
        statistics = Statistics(rows[0].shape[1], Need.DIAGONAL, torch.device("cpu"))
        for x_TI in rows:
            statistics.add(x_TI, name)
        weight_OI = model.get_parameter(f"{name}.weight").detach()
        return PRUNERS["wanda"].prune(weight_OI, statistics, SparsityPattern(n=2, m=4))[1]

    for name in names:
        inputs = [one[name][0] for one in seen]
        assert torch.equal(mask(name, [x_TI[counts_T] for x_TI, counts_T in zip(inputs, counts, strict=True)]), masks[name])
        differs |= not torch.equal(mask(name, inputs), masks[name])
    assert differs, "the test would pass if the policy were ignored"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_says_which_tokens_are_visual(tmp_path: Path, family: str) -> None:
    source = dense(family, tmp_path)
    model, processor = source.load(), source.load_processor()
    feed = Encoder(processor, source.family, model).inputs(data.load("demo", "train", 1)[0])
    ids_BT, visual_BT = feed["input_ids"], source.family.visual_tokens(model, feed)
    assert visual_BT.shape == ids_BT.shape
    assert int(visual_BT.sum()) == {"llava": (pico.SIDE // 16) ** 2, "blip-2": 4}[family]
    width = int(model.get_input_embeddings().weight.shape[1])  # type: ignore[operator]
    changed: list[Tensor] = []
    for seed in (1, 2):  # whatever the picture changes in the language model's input is visual, and nothing else
        prefix = source.family.blocks(model, source.family.towers[1])[0][0]
        handle = model.get_submodule(prefix).register_forward_pre_hook(
            lambda _, args, kwargs: changed.append((*args, *kwargs.values())[0]), with_kwargs=True
        )
        with torch.no_grad():
            pixels = torch.randn(1, 3, pico.SIDE, pico.SIDE, generator=torch.Generator().manual_seed(seed))
            model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), pixel_values=pixels)
        handle.remove()
    assert changed[0].shape[-1] == width
    assert torch.equal((changed[0] != changed[1]).any(-1), visual_BT)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sparsegpt", pytest.param("admm", marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_vision_tower_uses_all_its_tokens(tmp_path: Path, family: str, method: str) -> None:
    source = dense(family, tmp_path)
    runs = [prune(source, tmp_path / policy, tokens=policy, method=method, refit=True) for policy in ("all", "text", "atv")]
    models = [SavedModel.find(str(one.root)).load() for one in runs]
    for name, layer in runs[0].manifest.layers.items():
        first, *others = (model.get_parameter(f"{name}.weight") for model in models)
        assert [torch.equal(first, other) for other in others] == [layer.part is Part.VISION] * 2, name


def test_nothing_is_noted_where_nothing_is_left_dense_or_raised(tmp_path: Path) -> None:
    artifact = prune(dense("llava", tmp_path), tmp_path / "out", method="sparsegpt", allow_dense=True)
    assert set(artifact.manifest.history[0].measures) == {"layers", "sparsity", "precision", "data"}


@pytest.mark.parametrize("method", ["sparsegpt", "admm"])
def test_a_raised_damping_is_in_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    factor, failures = torch.linalg.cholesky_ex, iter([1])

    def fail_once(matrix_II: Tensor, upper: bool = False) -> tuple[Tensor, Tensor]:
        lower_II, failed = factor(matrix_II, upper=upper)
        return lower_II, failed + next(failures, 0)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", fail_once)
    artifact = prune(dense("llava", tmp_path), tmp_path / "out", method=method)
    first, usual = next(iter(artifact.manifest.layers)), {"sparsegpt": 0.01, "admm": 0.1}[method]
    shared = [first.replace("k_proj", name) for name in ("k_proj", "q_proj", "v_proj")]  # one Hessian, one factor
    raised = dict.fromkeys(shared if method == "sparsegpt" else [first], pytest.approx(10 * usual))
    assert artifact.manifest.history[0].measures["raised_damping"] == raised


@pytest.mark.parametrize("policy", ["all", "text", "atv"])
@pytest.mark.parametrize("family", FAMILIES)
def test_broken_activations_name_the_layer_in_full(tmp_path: Path, family: str, policy: str) -> None:
    from safetensors.torch import load_file, save_file

    source = dense(family, tmp_path)
    prefix, _ = source.family.blocks(source.load(), source.family.towers[1])[1]
    weights = load_file(source.folder / "model.safetensors")
    norm = next(name for name in weights if prefix.rpartition("language_model.")[2] in name and "norm.weight" in name)
    weights[norm].fill_(float("inf"))
    save_file(weights, source.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"NaN or infinite inputs at {prefix}\.\S+: ".replace(".layers", r"\.layers")):
        prune(source, tmp_path / "out", tokens=policy)
