from pathlib import Path

import pytest
import torch

from tests import pico
from vlmc.runtime.artifact import Artifact, Part
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain import data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.prune.statistics import Need, Statistics
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.verify import verify_artifact

FAMILIES = sorted(pico.FAMILIES)


def dense(family: str, folder: Path) -> Checkpoint:
    return Checkpoint.find(str(pico.save(family, folder / "dense")))


def prune(source: Checkpoint, out: Path, **options: object) -> Artifact:
    return Prune(PruneSettings(calibration=4, **options)).run(source, out)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", PRUNERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_of_both_towers_holds_and_nothing_else_changed(tmp_path: Path, family: str, method: str) -> None:
    source = dense(family, tmp_path)
    artifact = prune(source, tmp_path / "out", method=method)
    before, after = source.load(), Checkpoint.find(str(tmp_path / "out")).load()
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
    dense_model, pruned_model = source.load(), Checkpoint.find(str(artifact.root)).load()
    weight_OI = dense_model.get_submodule(name).weight
    assert isinstance(weight_OI, torch.Tensor)

    def mask(model: torch.nn.Module) -> torch.Tensor:
        return PRUNERS["wanda"].prune(weight_OI.detach(), _observe(model, name, source), SparsityPattern(n=2, m=4))[1]

    assert torch.equal(mask(pruned_model), saved)
    assert not torch.equal(mask(dense_model), saved), "the test would pass without block-by-block calibration"


def _observe(model: torch.nn.Module, name: str, source: Checkpoint) -> Statistics:
    layer = model.get_submodule(name)
    statistics = Statistics(int(str(layer.in_features)), Need.DIAGONAL, torch.device("cpu"))
    layer.register_forward_pre_hook(lambda module, args: statistics.add(args[0], name))
    processor = source.load_processor()
    encoder = Encoder(processor, source.family.serving(model, processor))
    with torch.no_grad():
        statistics.tokens, statistics.squares_I = 0, torch.zeros_like(statistics.squares_I)
        for sample in data.load("demo", "train", 4):
            model(**{key: value for key, value in encoder.answered(sample).items() if key != "labels"})
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
        ({"target": "2:7"}, "no multiple of the pattern's group"),
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
        prune(Checkpoint.find(str(tmp_path / "out")), tmp_path / "again")
