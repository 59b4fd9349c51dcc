"""merge as a stage: the weights, the proof of equal logits, and what it refuses."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from tests import pico
from tests.repair import material
from vlmc.runtime.artifact import Artifact, write
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.tensors import open_weights
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.repair.adapter_files import attach_saved, load_adapter
from vlmc.toolchain.settings import PruneMethod
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.repair import Repair

Adapt = Callable[..., Checkpoint]


@pytest.fixture(scope="module")
def adapt(tmp_path_factory: pytest.TempPathFactory) -> Adapt:
    """Prune and repair pico models, each once; no test changes them."""

    @cache
    def made(family: str, method: PruneMethod = "magnitude") -> Checkpoint:
        folder = tmp_path_factory.mktemp(f"{family}-{method}")
        source = material.pruned(material.dense(family, folder / "dense"), folder / "pruned", method)
        Repair(material.OPTIONS, samples=material.samples()).run(source, folder / "adapted")
        return Checkpoint.find(str(folder / "adapted"))

    return made


def rewritten(source: Checkpoint, folder: Path, path: str, content: bytes) -> Checkpoint:
    """Return a copy of an artifact with one file replaced, and a manifest that lists the new one."""
    artifact = Artifact.open(source.folder)
    with write(folder) as draft:
        shutil.copytree(source.folder, draft.root, dirs_exist_ok=True)
        (draft.root / path).unlink()
        (draft.root / path).write_bytes(content)
        draft.seal(artifact.manifest)
    return Checkpoint.find(str(folder))


@pytest.mark.parametrize(("family", "method"), [("llava", "magnitude"), ("blip-2", "sparsegpt")])
def test_the_merged_model_is_base_and_adapter(family: str, method: PruneMethod, adapt: Adapt, tmp_path: Path) -> None:
    source = adapt(family, method)
    result = Merge().run(source, tmp_path / "merged")
    assert result.manifest.state == "merged"
    assert not (result.root / "adapter").exists()
    assert (result.root / "reports" / "repair.csv").is_file()
    assert 0 < result.manifest.history[-1].measures["logit_difference"] < 1e-2

    masks = load_masks(source.folder, Artifact.open(source.folder).manifest)
    model = source.load()
    adapters = attach_saved(model, load_adapter(source.folder / "adapter"), masks)
    merged = AutoModelForImageTextToText.from_pretrained(result.root, dtype=torch.float16)
    for name, layer in adapters.layers.items():
        assert torch.equal(merged.get_parameter(f"{name}.weight"), layer.merged().half()), name
        assert not torch.equal(merged.get_parameter(f"{name}.weight"), layer.weight.half()) or not layer.lora_B.any(), name
    others = {name for name, _ in merged.named_parameters()} - {f"{name}.weight" for name in adapters.layers}
    assert all(torch.equal(merged.get_parameter(name), model.get_parameter(name).half()) for name in others)

    encoder, asked = material.encoder(source), material.samples(3)
    for sample in asked:
        feed = encoder.question(sample)
        expected, found = model(**feed).logits, merged.float()(**feed).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-2 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("family", pico.DEPLOYABLE)
def test_pruned_weights_are_positive_zeros_and_names_stay(family: str, adapt: Adapt, tmp_path: Path) -> None:
    source = adapt(family)
    result = Merge().run(source, tmp_path / "merged")
    before, after = open_weights(source.folder), open_weights(result.root)
    assert before.keys() == after.keys()
    masks = load_masks(result.root, result.manifest)
    for name, layer in result.manifest.layers.items():
        assert not np.any(after[layer.tensor][layer.tensor][~masks[name].numpy()])
    assert (result.root / "masks.safetensors").read_bytes() == (source.folder / "masks.safetensors").read_bytes()


def test_the_interface_is_merged_too(adapt: Adapt, tmp_path: Path) -> None:
    source = adapt("blip-2")
    before, after = source.load(), Checkpoint.find(str(Merge().run(source, tmp_path / "merged").root)).load()
    moved = [
        name
        for name in source.family.adaptable(before)
        if not torch.equal(before.get_parameter(f"{name}.weight"), after.get_parameter(f"{name}.weight"))
    ]
    assert "language_projection" in moved
    assert any("qformer" in name for name in moved)


def test_merging_twice_gives_the_same_bytes(adapt: Adapt, tmp_path: Path) -> None:
    source = adapt("llava")
    one, two = (Merge(material.samples(2)).run(source, tmp_path / name) for name in ("one", "two"))
    assert one.manifest == two.manifest
    assert (one.root / "manifest.json").read_bytes() == (two.root / "manifest.json").read_bytes()


def test_only_a_repaired_artifact_is_merged(adapt: Adapt, tmp_path: Path) -> None:
    source = adapt("llava")
    with pytest.raises(InputError, match="is pruned: merge works on a repaired artifact"):
        Merge().run(Checkpoint.find(str(source.folder.parent / "pruned")), tmp_path / "out")
    with pytest.raises(InputError, match="is no vlmc artifact: merge works on"):
        Merge().run(Checkpoint.find(str(source.folder.parent / "dense")), tmp_path / "out")
    merged = Merge().run(source, tmp_path / "merged")
    with pytest.raises(InputError, match="is merged: merge works on"):
        Merge().run(Checkpoint.find(str(merged.root)), tmp_path / "out")


def test_an_adapter_of_another_base_is_refused(adapt: Adapt, tmp_path: Path) -> None:
    source = adapt("llava")
    other = adapt("llava", "sparsegpt")
    path = "adapter/adapter_model.safetensors"
    foreign = rewritten(source, tmp_path / "foreign", path, (other.folder / path).read_bytes())
    with pytest.raises(InputError, match="trained on another model than the one beside it"):
        Merge().run(foreign, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_edited_adapter_is_refused(adapt: Adapt, tmp_path: Path) -> None:
    shutil.copytree(adapt("llava").folder, tmp_path / "edited")
    source = Checkpoint.find(str(tmp_path / "edited"))
    path = source.folder / "adapter" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not the file that the manifest lists"):
        Merge().run(source, tmp_path / "out")


def test_a_base_that_breaks_its_mask_is_refused(adapt: Adapt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = adapt("llava")
    manifest = Artifact.open(source.folder).manifest
    name, layer = next(iter(manifest.layers.items()))
    row, column = (~load_masks(source.folder, manifest)[name]).nonzero()[0].tolist()
    tensors = load_file(source.folder / "model.safetensors")
    tensors[layer.tensor][row, column] = 0.5
    save_file(tensors, tmp_path / "edited.safetensors", metadata={"format": "pt"})
    edited = rewritten(source, tmp_path / "edited", "model.safetensors", (tmp_path / "edited.safetensors").read_bytes())
    recorded = load_adapter(source.folder / "adapter").base_digest
    # an edited base is a foreign one by its digest: let that pass, to see that the merge itself looks at the weights
    monkeypatch.setattr("vlmc.toolchain.stages.merge._base_digest", lambda _: recorded)
    with pytest.raises(CheckFailed, match=f"cannot merge {name}: the weight in row {row}, column {column} is pruned"):
        Merge().run(edited, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_that_loses_the_adapter_is_noticed(adapt: Adapt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = adapt("blip-2")
    monkeypatch.setattr("vlmc.toolchain.stages.merge.merge", lambda adapters, dtype: adapters.detach())
    with pytest.raises(CheckFailed, match="merged model's logits differ"):
        Merge().run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
