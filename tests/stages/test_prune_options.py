"""Layer-wise ratios, swaps and reconstruction, as the step wires them."""

from pathlib import Path

import pytest
import torch

from tests import pico
from vlmc.runtime.artifact import Artifact, Part
from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.prune.journal import Journal
from vlmc.toolchain.reporting.verification import verify_artifact
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.prune import Prune


def dense(folder: Path, family: str = "llava") -> SavedModel:
    return SavedModel.find(str(pico.save(family, folder / "dense")))


def prune(source: SavedModel, out: Path, *, resume: bool = False, **options: object) -> Artifact:
    settings = PruneSettings.model_validate({"calibration": 4, **options})
    return Prune(settings, resume=resume).run(source, out)


def zeros(artifact: Artifact, part: Part) -> float:
    masks = load_masks(artifact.root, artifact.manifest)
    chosen = [mask for name, mask in masks.items() if artifact.manifest.layers[name].part is part]
    return sum(int((~mask).sum()) for mask in chosen) / sum(mask.numel() for mask in chosen)


@pytest.mark.slow
@pytest.mark.parametrize("ratios", ["owl", "ecoflap"])
def test_ratios_share_out_each_towers_percentage(ratios: str, tmp_path: Path) -> None:
    artifact = prune(
        dense(tmp_path), tmp_path / "out", ratios=ratios, vision="40%", language="60%", layers={"*.0.*q_proj": "2:4"}
    )
    layers = artifact.manifest.layers
    assert {layer.pattern for name, layer in layers.items() if name.endswith("0.self_attn.q_proj")} == {"2:4"}
    shared = {name: layer for name, layer in layers.items() if layer.pattern != "2:4"}
    for part, target in ((Part.VISION, 0.4), (Part.LANGUAGE, 0.6)):
        assert len({layer.pattern for layer in shared.values() if layer.part is part}) > 1
        assert zeros(artifact, part) == pytest.approx(target, abs=0.03)
    assert all(report.violation is None for report in verify_artifact(artifact))


@pytest.mark.slow
def test_a_stopped_run_keeps_its_ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dense(tmp_path)
    whole = prune(source, tmp_path / "whole", ratios="owl", target="50%")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "write", interrupted)
        prune(source, tmp_path / "out", ratios="owl", target="50%")
    assert (tmp_path / "out.blocks" / "ratios.json").is_file()
    monkeypatch.setattr("vlmc.toolchain.prune.model.outlier_scores", interrupted)
    assert prune(source, tmp_path / "out", resume=True, ratios="owl", target="50%").digest == whole.digest


def interrupted(*given: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
@pytest.mark.parametrize("spill", [False, True])
def test_reconstruction_lowers_the_blocks_errors_and_keeps_the_masks(method: str, spill: bool, tmp_path: Path) -> None:
    source = dense(tmp_path)
    options = {"method": method, "spill": spill, "vision": "none"}
    plain = prune(source, tmp_path / "plain", **options)
    trained = prune(source, tmp_path / "trained", reconstruct=True, reconstruct_epochs=3, **options)
    found = trained.manifest.history[0].measures["reconstruction"]
    assert list(found) == [f"model.language_model.layers.{number}" for number in (0, 1)]
    assert all(errors["after"] < 0.9 * errors["before"] for errors in found.values())
    first = "model.language_model.layers.0.mlp.up_proj"  # later masks depend on what the first block gives
    one, other = (load_masks(artifact.root, artifact.manifest)[first] for artifact in (plain, trained))
    assert torch.equal(one, other)
    assert plain.digest != trained.digest
    assert all(report.violation is None for report in verify_artifact(trained))


@pytest.mark.integration
def test_swaps_change_the_mask(tmp_path: Path) -> None:
    source = dense(tmp_path)
    plain, swapped = (prune(source, tmp_path / str(dsnot), method="wanda", dsnot=dsnot) for dsnot in (False, True))
    name = next(iter(plain.manifest.layers))
    one, other = (load_masks(artifact.root, artifact.manifest)[name] for artifact in (plain, swapped))
    assert not torch.equal(one, other)
    assert int(one.sum()) == int(other.sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": "owl"}, "--ratios owl shares out a percentage such as 50%; 2:4 is the same everywhere"),
        ({"ratios": "ecoflap", "target": "50%", "language": "4:8"}, "4:8 is the same everywhere"),
        ({"dsnot": True, "method": "sparsegpt"}, "--dsnot changes masks, and the weights of sparsegpt fit its own"),
    ],
)
def test_says_what_does_not_go_together(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        prune(dense(tmp_path), tmp_path / "out", **options)
    assert not (tmp_path / "out.blocks").exists()


def test_a_target_that_prunes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0\.001% prunes nothing: it is less than one weight of a row.*at least \d.*%"):
        prune(dense(tmp_path), tmp_path / "out", target="0.001%", method="magnitude")
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(pico.USUAL))
def test_layers_that_do_not_divide_stay_dense_where_that_is_allowed(tmp_path: Path, family: str) -> None:
    source = dense(tmp_path, family)
    artifact = prune(source, tmp_path / "out", target="32:64", allow_dense=True)  # inputs are 32 or 64 wide
    before, after = source.load(), SavedModel.find(str(artifact.root)).load()
    widths = {name: int(str(before.get_submodule(name).in_features)) for name in source.family.prunable(before)}
    assert artifact.manifest.history[0].measures["left_dense"] == {name: 32 for name, width in widths.items() if width == 32}
    assert set(artifact.manifest.layers) == {name for name, width in widths.items() if width == 64}
    for name, width in widths.items():
        weights = [model.get_parameter(f"{name}.weight") for model in (before, after)]
        assert torch.equal(*weights) == (width == 32)
    assert all(report.violation is None for report in verify_artifact(artifact))
