"""verify-sparsity must find every way in which a saved artifact can break its promise."""

import json
import shutil
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
from vlmc.runtime.tensors import TensorFile
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.reporting.verification import damages, ensure_sparsity, not_finite, verify_artifact, verify_path

pytestmark = pytest.mark.integration


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


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "NaN"), (float("-inf"), "infinite")])
def test_weights_that_are_no_numbers_are_named(artifact: Artifact, value: float, said: str) -> None:
    def edit(weight: Tensor) -> None:
        row, column = weight.nonzero()[-1].tolist()
        weight[row, column] = value

    name = change(artifact, edit)
    with pytest.raises(CheckFailed, match=rf"^{name} does not hold 2:4: the weight at \[\d+, \d+\] is {said}$"):
        ensure_sparsity(artifact)


def test_a_weight_that_is_no_number_outside_the_pruned_layers_is_named(artifact: Artifact) -> None:
    pruned, path = {layer.tensor for layer in artifact.manifest.layers.values()}, artifact.root / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name not in pruned and name.endswith("bias"))
    tensors[name][1] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    assert damages(artifact.root) == [
        "model.safetensors is not the file that the manifest lists (SHA-256 differs)",
        f"{name}: the weight at [1] is NaN",
    ]


def test_every_type_is_looked_at_for_what_is_no_number(tmp_path: Path) -> None:
    for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        finite = torch.tensor([[0.0, -0.0, torch.finfo(kind).max], [torch.finfo(kind).tiny, 1.0, -1.0]], dtype=kind)
        odd = torch.tensor([[0.0, 1.0], [float("inf"), float("nan")]], dtype=kind)
        save_file({"finite": finite, "odd": odd, "whole": torch.tensor([-1])}, tmp_path / "a.safetensors")
        file = TensorFile(tmp_path / "a.safetensors")
        assert [not_finite(file, name) for name in ("finite", "odd", "whole")] == [
            None,
            "the weight at [1, 0] is infinite",
            None,
        ]


def test_a_change_that_keeps_the_pattern_is_found(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(weight: Tensor) -> None:
        weight.neg_().add_(0.0)  # the zeros stay +0.0

    change(artifact, edit)
    assert run(["verify-sparsity", str(artifact.root), "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["holds"] is False
    assert "model.safetensors is not the file that the manifest lists (SHA-256 differs)" in printed.err
    assert run(["inspect", str(artifact.root)]) == 0
    assert "CHANGED: model.safetensors is not the file that the manifest lists" in capsys.readouterr().out


def test_of_several_files_with_weights_those_are_read_that_transformers_reads(artifact: Artifact, tmp_path: Path) -> None:
    dense = tmp_path / "dense"
    shutil.copyfile(artifact.root / "model.safetensors", dense / "zz.safetensors")
    assert all(report.violation for report in verify_path(dense, "2:4"))
    index = {"weight_map": dict.fromkeys(load_file(dense / "zz.safetensors"), "zz.safetensors")}
    (dense / "model.safetensors.index.json").write_text(json.dumps(index))
    assert all(report.violation for report in verify_path(dense, "2:4"))
    (dense / "model.safetensors").rename(dense / "aa.safetensors")
    (dense / "model.safetensors.index.json").unlink()
    with pytest.raises(InputError, match=r"twice, in aa\.safetensors and zz\.safetensors: remove one"):
        verify_path(dense, "2:4")


def test_a_target_that_prunes_nothing_does_not_hold(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0\.001% prunes nothing: .*give at least \d"):
        verify_path(tmp_path / "dense", "0.001%")
