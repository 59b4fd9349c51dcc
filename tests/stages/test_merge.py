"""merge as a stage: the weights, the proof of equal logits, and what it refuses."""

import json
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
from vlmc.runtime.artifact import Artifact, Manifest, Step, write
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.tensors import open_weights
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.adapters import attach_saved, load_adapter
from vlmc.toolchain.repair.adapters.examples import encode_examples, trained_on
from vlmc.toolchain.settings import DataSettings, PruneMethod
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.repair import Repair

pytestmark = pytest.mark.integration

Adapt = Callable[..., SavedModel]


@pytest.fixture(scope="module")
def adapt(tmp_path_factory: pytest.TempPathFactory) -> Adapt:
    """Prune and repair pico models, each once; no test changes them."""

    @cache
    def made(family: str, method: PruneMethod = "magnitude") -> SavedModel:
        folder = tmp_path_factory.mktemp(f"{family}-{method}")
        source = material.pruned(material.dense(family, folder / "dense"), folder / "pruned", method)
        Repair(material.OPTIONS, samples=material.samples()).run(source, folder / "adapted")
        return SavedModel.find(str(folder / "adapted"))

    return made


def rewritten(source: SavedModel, folder: Path, path: str, content: bytes) -> SavedModel:
    """Return a copy of an artifact with one file replaced, and a manifest that lists the new one."""
    artifact = Artifact.open(source.folder)
    with write(folder) as draft:
        shutil.copytree(source.folder, draft.root, dirs_exist_ok=True)
        (draft.root / path).unlink()
        (draft.root / path).write_bytes(content)
        draft.seal(artifact.manifest)
    return SavedModel.find(str(folder))


@pytest.mark.slow
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


@pytest.mark.parametrize("family", pico.USUAL)
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
    before, after = source.load(), SavedModel.find(str(Merge().run(source, tmp_path / "merged").root)).load()
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
    with pytest.raises(InputError, match=r"is pruned: merge a repaired artifact, as 'vlmc repair .*' writes it"):
        Merge().run(SavedModel.find(str(source.folder.parent / "pruned")), tmp_path / "out")
    with pytest.raises(InputError, match="is dense: merge a repaired artifact, as 'vlmc repair' writes it"):
        Merge().run(SavedModel.find(str(source.folder.parent / "dense")), tmp_path / "out")
    merged = Merge().run(source, tmp_path / "merged")
    with pytest.raises(InputError, match="is already merged: merge a repaired artifact"):
        Merge().run(SavedModel.find(str(merged.root)), tmp_path / "out")


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
    source = SavedModel.find(str(tmp_path / "edited"))
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
    monkeypatch.setattr("vlmc.toolchain.repair.adapters.mergeable._base_digest", lambda _: recorded)
    with pytest.raises(CheckFailed, match=f"cannot merge {name}: the weight in row {row}, column {column} is pruned"):
        Merge().run(edited, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_of_mixed_types_goes_through_the_chain(tmp_path: Path) -> None:
    folder = pico.save("llava", tmp_path / "dense")
    config = json.loads((folder / "config.json").read_text())
    types = [torch.float16, torch.bfloat16, torch.float32]
    mixed = {
        name: one.to(types[place % 3]) for place, (name, one) in enumerate(load_file(folder / "model.safetensors").items())
    }
    save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({name: one for name, one in config.items() if name != "dtype"}))
    source = material.pruned(SavedModel.find(str(folder)), tmp_path / "pruned")
    options = material.OPTIONS.model_copy(update={"steps": 2, "precision": "bf16"})
    adapted = Repair(options, samples=material.samples(4)).run(source, tmp_path / "adapted")
    merged = Merge(material.samples(2)).run(SavedModel.find(str(adapted.root)), tmp_path / "merged")
    before, after = load_file(adapted.root / "model.safetensors"), load_file(merged.root / "model.safetensors")
    assert {name: one.dtype for name, one in after.items()} == {name: one.dtype for name, one in mixed.items()}
    tensors = [layer.tensor for layer in merged.manifest.layers.values()]
    assert {mixed[name].dtype for name in tensors} == set(types)
    moved = {after[name].dtype for name in tensors if not torch.equal(before[name], after[name])}
    assert moved == set(types)


def test_the_proof_takes_the_data_of_the_repair_where_they_are(adapt: Adapt, tmp_path: Path) -> None:
    source, lost = adapt("llava"), DataSettings(data=str(tmp_path / "lost.jsonl"))
    artifact = Artifact.open(source.folder)
    assert trained_on(artifact.manifest) == DataSettings(data="demo")
    found = encode_examples([lost, DataSettings(data="demo")], material.encoder(source))
    assert len(found) == 4
    assert encode_examples([lost, DataSettings(data="no-one/there")], material.encoder(source)) == []
    history = [step.model_copy(update={"config": {"data": lost.data}}) for step in artifact.manifest.history]
    step = noisy(source, tmp_path / "moved", artifact.manifest.model_copy(update={"history": tuple(history)}))
    assert step.measures["noise"]


def noisy(source: SavedModel, folder: Path, manifest: Manifest) -> Step:
    """Merge a copy of an artifact with another manifest; return the last line of the result's history."""
    with write(folder) as draft:
        shutil.copytree(source.folder, draft.root, dirs_exist_ok=True)
        draft.seal(manifest)
    return Merge().run(SavedModel.find(str(folder)), folder.with_name("merged")).manifest.history[-1]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[SavedModel]:
    """Two repairs of one pruned model on different questions, of different methods, ranks and scales."""
    folder = tmp_path_factory.mktemp("two")
    source = material.pruned(material.dense("llava", folder / "dense"), folder / "pruned")
    changes: list[dict[str, object]] = [{}, {"method": "spp", "rank": 2, "alpha": 5.0}]
    for number, change in enumerate(changes):
        some = material.samples()[number::2]
        Repair(material.OPTIONS.model_copy(update={"steps": 8, **change}), number, samples=some).run(
            source, folder / f"{number}"
        )
    return [SavedModel.find(str(folder / name)) for name in ("0", "1")]


@pytest.mark.slow
def test_several_adapters_are_added_up_each_with_its_own_scale(two: list[SavedModel], tmp_path: Path) -> None:
    one, other = two
    result = Merge(others=[other.folder]).run(one, tmp_path / "merged")
    base, masks = one.load(), load_masks(one.folder, Artifact.open(one.folder).manifest)
    expected = {name: weight.detach().clone() for name, weight in base.named_parameters()}
    for source in two:
        adapters = attach_saved(base, load_adapter(source.folder / "adapter"), masks)
        for name, layer in adapters.layers.items():
            expected[f"{name}.weight"] += layer.merged() - layer.weight
        adapters.detach()
    merged = AutoModelForImageTextToText.from_pretrained(result.root, dtype=torch.float32)
    for name, weight in merged.named_parameters():
        torch.testing.assert_close(weight, expected[name].half().float(), rtol=2e-3, atol=1e-6)
    step = result.manifest.history[-1]
    assert step.measures["adapters"] == ["ressa", "spp"]
    assert len(step.config["others"]) == 1
    assert Merge(others=[two[1].folder / "adapter"]).settings() == step.config


@pytest.mark.slow
def test_adapters_alone_are_merged_into_the_pruned_model(two: list[SavedModel], tmp_path: Path) -> None:
    pruned = SavedModel.find(str(two[0].folder.parent / "pruned"))
    whole = Merge(others=[two[1].folder]).run(two[0], tmp_path / "whole")
    apart = Merge(others=[source.folder / "adapter" for source in two]).run(pruned, tmp_path / "apart")
    weights = "model.safetensors"
    assert (apart.root / weights).read_bytes() == (whole.root / weights).read_bytes()


def test_one_foreign_adapter_among_several_is_refused(two: list[SavedModel], adapt: Adapt, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trained on another model than the one beside it"):
        Merge(others=[adapt("llava", "sparsegpt").folder]).run(two[0], tmp_path / "out")
    with pytest.raises(InputError, match="the same adapter is named twice"):
        Merge(others=[two[0].folder]).run(two[0], tmp_path / "out")


def test_a_sum_that_loses_an_adapter_is_noticed(
    two: list[SavedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.toolchain.repair.adapters.adding.Sum.merged", lambda self: self.layers[0].merged())
    with pytest.raises(CheckFailed, match=r"merged weight of .* is not what was trained"):
        Merge(others=[two[1].folder]).run(two[0], tmp_path / "out")


def test_the_command_takes_adapters_alone_or_beside_an_artifact(two: list[SavedModel], tmp_path: Path) -> None:
    one, other = (str(source.folder) for source in two)
    for name, arguments in (("a", ["--adapter", one, "--adapter", other]), ("b", [one, "--adapter", other])):
        assert run(["merge", *arguments, "--out", str(tmp_path / name), "--quiet"]) == 0
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()
