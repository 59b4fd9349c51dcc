"""verify-sparsity must find every way in which a saved artifact can break its promise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import pico
from tests.artifacts import pruned
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.reporting.verification import ensure_sparsity, verify_artifact, verify_path


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "pruned")


def change(artifact: Artifact, edit: Callable[[Tensor], None], layer: int = 3) -> str:
    """Edit one layer's weight in the file; return the layer's name."""
    name, entry = list(artifact.manifest.layers.items())[layer]
    path = artifact.root / "model.safetensors"
    tensors = load_file(path)
    edit(tensors[entry.tensor])
    save_file(tensors, path, metadata={"format": "pt"})
    return name


def test_a_sound_artifact_holds(artifact: Artifact) -> None:
    reports = ensure_sparsity(artifact)
    assert [report.layer for report in reports] == list(artifact.manifest.layers)
    tensors = load_file(artifact.root / "model.safetensors")
    for report, layer in zip(reports, artifact.manifest.layers.values(), strict=True):
        assert report.nonzero == int(tensors[layer.tensor].count_nonzero())
        assert (report.rows, report.columns) == tuple(tensors[layer.tensor].shape)


def test_one_weight_in_the_last_group_is_found_with_its_place(artifact: Artifact) -> None:
    def edit(weight: Tensor) -> None:
        weight[-1, -4:] = torch.tensor([1.0, 0, 1e-7, 1.0]).to(weight.dtype)

    name = change(artifact, edit)
    with pytest.raises(
        CheckFailed, match=rf"^{name} does not hold 2:4: row 31, columns \d+-\d+ hold 3 non-zero weights, 2 allowed$"
    ):
        ensure_sparsity(artifact)
    assert [report.layer for report in verify_artifact(artifact) if report.violation] == [name]


def test_a_weight_that_moved_within_its_group_is_found(artifact: Artifact) -> None:
    def edit(weight: Tensor) -> None:
        weight[5, 8:12] = weight[5, 8:12].flip(0)
        weight[5, 8:12] = torch.where(weight[5, 8:12] != 0, 0.0, 1.0).to(weight.dtype)

    change(artifact, edit)
    with pytest.raises(CheckFailed, match=r"row 5, column \d+ is not \+0\.0, but pruned in its mask"):
        ensure_sparsity(artifact)


def test_a_negative_zero_is_found(artifact: Artifact) -> None:
    def edit(weight: Tensor) -> None:
        row, column = (weight == 0).nonzero()[7].tolist()
        weight[row, column] = -0.0

    change(artifact, edit)
    with pytest.raises(CheckFailed, match="does not hold 2:4"):
        ensure_sparsity(artifact)


def test_a_mask_that_keeps_too_much_is_found(artifact: Artifact) -> None:
    path = artifact.root / "masks.safetensors"
    masks = load_file(path)
    name = list(artifact.manifest.layers.values())[0].tensor
    masks[name][2] = 255
    save_file(masks, path)
    with pytest.raises(CheckFailed, match="its mask keeps too many weights in row 2"):
        ensure_sparsity(artifact)


def test_kept_weights_may_be_zero(artifact: Artifact) -> None:
    def edit(weight: Tensor) -> None:
        weight.zero_()

    change(artifact, edit)
    ensure_sparsity(artifact)


@pytest.mark.parametrize("file", ["model.safetensors", "masks.safetensors"])
def test_a_promised_layer_that_is_not_there_is_unusable_input(artifact: Artifact, file: str) -> None:
    tensors = load_file(artifact.root / file)
    del tensors[list(artifact.manifest.layers.values())[-1].tensor]
    save_file(tensors, artifact.root / file)
    with pytest.raises(InputError, match="which is in the manifest"):
        ensure_sparsity(artifact)


def test_packed_masks_are_one_bit_per_weight(artifact: Artifact) -> None:
    masks, weights = load_file(artifact.root / "masks.safetensors"), load_file(artifact.root / "model.safetensors")
    for name, bits in masks.items():
        kept = np.unpackbits(bits.numpy(), axis=1).astype(bool)
        assert np.array_equal(kept, weights[name].numpy() != 0)


def test_any_folder_that_transformers_loads_is_held_against_a_target(artifact: Artifact) -> None:
    layers = list(artifact.manifest.layers)
    (artifact.root / "manifest.json").unlink()
    (artifact.root / "masks.safetensors").unlink()
    reports = verify_path(artifact.root, "2:4")
    assert [report.layer for report in reports] == layers
    assert not any(report.violation for report in reports)

    def fill(weight: Tensor) -> None:
        weight[weight == 0] = 1

    def break_one(weight: Tensor) -> None:
        weight[0, :3] = 1

    filled, broken = change(artifact, fill), change(artifact, break_one, 5)
    found = {report.layer: report.violation for report in verify_path(artifact.root, "2:4") if report.violation}
    assert list(found) == [filled, broken]
    assert found[filled].startswith("dense: row 0, columns 0-3 hold 4 non-zero weights")
    assert found[broken].startswith("row 0, columns 0-3 hold")


def test_a_dense_models_layers_are_all_told_to_be_dense(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    dense = artifact.root.parent / "dense"
    assert run(["verify-sparsity", str(dense), "--target", "2:4"]) == 1
    out, err = capsys.readouterr()
    assert f"0 of {len(artifact.manifest.layers)} layers hold; {len(artifact.manifest.layers)} are dense" in out
    assert "does not hold 2:4: dense" in err
    with pytest.raises(InputError, match="so its pattern is not known: add --target"):
        verify_path(dense, None)
