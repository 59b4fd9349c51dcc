"""A run of prune that is stopped goes on at the block where it was, and several processes make what one makes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import pico
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.models.streaming.stack import Stack
from vlmc.toolchain.prune.journal import Journal
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.prune import Prune

pytestmark = pytest.mark.integration

FAMILIES = (*pico.USUAL, "gemma3")


class Stopped(Exception):
    """Stands for Ctrl-C."""


def dense(family: str, folder: Path) -> SavedModel:
    return SavedModel.find(str(pico.save(family, folder / "dense")))


def prune(source: SavedModel, out: Path, *, resume: bool = False, **options: object) -> Artifact:
    settings = PruneSettings.model_validate({"calibration": 4, "method": "sparsegpt", **options})
    return Prune(settings, resume=resume).run(source, out)


def stop_after(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let that many blocks be finished, and stop in the middle of the next."""
    write, done = Journal.write, []

    def writing(journal: Journal, block: str, *rest: object) -> None:
        if len(done) == blocks:
            raise Stopped
        done.append(block)
        write(journal, block, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "write", writing)


def same_bytes(one: Path, other: Path) -> bool:
    files = [{path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} for folder in (one, other)]
    return files[0] == files[1]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "blocks"), [("llava", 0), ("llava", 4), ("blip-2", 1), ("blip-2", 3)])
def test_stopped_at_any_block_it_ends_in_the_same_bytes(
    family: str, blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dense(family, tmp_path)
    total = sum(len(source.family.blocks(source.load(), tower)) for tower in source.family.towers)
    prune(source, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(blocks, patch)
        prune(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(list((tmp_path / "out.blocks").glob("*.safetensors"))) == blocks
    visited = count_visits(monkeypatch)
    prune(source, tmp_path / "out", resume=True)
    assert visited() == total - blocks
    assert same_bytes(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / "out.blocks").exists()


def count_visits(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    write, done = Journal.write, []

    def writing(journal: Journal, block: str, *rest: object) -> None:
        done.append(block)
        write(journal, block, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "write", writing)
    return lambda: len(done)


def test_without_resume_it_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dense("llava", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(2, patch)
        prune(source, tmp_path / "out", method="wanda")
    visited = count_visits(monkeypatch)
    prune(source, tmp_path / "out")
    assert visited() == 5


@pytest.mark.parametrize(
    "change", [{"method": "wanda"}, {"target": "4:8"}, {"calibration": 5}, {"layers": {"*fc1": "none"}}]
)
def test_another_run_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]) -> None:
    source = dense("llava", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(2, patch)
        prune(source, tmp_path / "out")
    with pytest.raises(InputError, match=f"holds another run: its {next(iter(change))}\\S* was .* leave --resume out"):
        prune(source, tmp_path / "out", resume=True, **change)


def test_a_damaged_block_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dense("llava", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(2, patch)
        prune(source, tmp_path / "out")
    block = min((tmp_path / "out.blocks").glob("*.safetensors"))
    block.write_bytes(block.read_bytes()[:40])
    with pytest.raises(InputError, match=rf"{block.name} is damaged .*: leave --resume out to start over"):
        prune(source, tmp_path / "out", resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_on_disk_change_nothing(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dense(family, tmp_path)
    in_memory = prune(source, tmp_path / "memory")
    spilled: list[Path] = []
    run = Stack.record
    monkeypatch.setattr(
        Stack, "record", lambda stack, call: spilled.extend((tmp_path / "disk.blocks").iterdir()) or run(stack, call)
    )
    on_disk = prune(source, tmp_path / "disk", spill=True)
    assert any(path.name == "spill-0" for path in spilled)
    assert on_disk.digest == in_memory.digest
    assert not (tmp_path / "disk.blocks").exists()


def test_single_layers_have_patterns_of_their_own(tmp_path: Path) -> None:
    source = dense("llava", tmp_path)
    layers = {"*layers.0.*q_proj": "none", "*language*layers.1.mlp.*": "1:4", "*mlp.down_proj": "75%", "*vision*fc?": "4:8"}
    artifact = prune(source, tmp_path / "out", layers=layers, method="wanda")
    found = {name: layer.pattern for name, layer in artifact.manifest.layers.items()}
    language = "model.language_model.layers"
    assert f"{language}.0.self_attn.q_proj" not in found
    assert found[f"{language}.0.self_attn.k_proj"] == "2:4"
    assert found[f"{language}.0.mlp.down_proj"] == "75%"
    assert found[f"{language}.1.mlp.down_proj"] == "1:4", "the first glob that matches decides"
    assert {pattern for name, pattern in found.items() if "fc" in name} == {"4:8"}


def test_exceptions_can_stand_alone(tmp_path: Path) -> None:
    artifact = prune(
        dense("llava", tmp_path), tmp_path / "out", vision="none", language="none", layers={"*.1.*up_proj": "2:4"}
    )
    assert list(artifact.manifest.layers) == ["model.language_model.layers.1.mlp.up_proj"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": {"*nowhere*": "2:4"}}, r"--layers \*nowhere\*: no layer that may be pruned matches"),
        ({"layers": {"*q_proj": "5:4"}}, "unknown sparsity '5:4'"),
        ({"layers": {"*": "none"}}, "nothing to prune: every layer is left dense"),
        ({"device": "tpu"}, "unknown device 'tpu': give cpu, cuda or cuda:1"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune(dense("llava", tmp_path), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == [tmp_path / "dense"]


def test_tied_weights_are_pruned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlavaForConditionalGeneration

    first, second = (f"model.language_model.layers.{number}.mlp.up_proj" for number in (0, 1))
    monkeypatch.setattr(LlavaForConditionalGeneration, "_tied_weights_keys", {f"{second}.weight": f"{first}.weight"})
    source = dense("llava", tmp_path)
    config = (source.folder / "config.json").read_text(encoding="utf-8")
    (source.folder / "config.json").write_text(config.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    weights = load_file(source.folder / "model.safetensors")
    shared = [name for name in weights if "up_proj" in name]
    for name in shared[1:]:
        weights.pop(name)
    save_file(weights, source.folder / "model.safetensors", metadata={"format": "pt"})
    assert len(shared) <= 2
    artifact = prune(source, tmp_path / "out")
    assert [name for name in artifact.manifest.layers if "up_proj" in name] == [first]
    model = SavedModel.find(str(artifact.root)).load()
    one, other = (model.get_parameter(f"{name}.weight") for name in (first, second))
    assert torch.equal(one, other)
    assert int((one == 0).sum()) * 2 == one.numel()


SHARDS = 3


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_sharded_checkpoints_keep_their_shards(family: str, tmp_path: Path) -> None:
    import json

    source = dense(family, tmp_path)
    whole = prune(source, tmp_path / "whole")
    weights = load_file(source.folder / "model.safetensors")
    names = sorted(weights)
    index = {name: f"model-{place % SHARDS}.safetensors" for place, name in enumerate(names)}
    for shard in sorted(set(index.values())):
        save_file({name: weights[name] for name in names if index[name] == shard}, source.folder / shard, {"format": "pt"})
    (source.folder / "model.safetensors").unlink()
    (source.folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    artifact = prune(SavedModel.find(str(source.folder)), tmp_path / "sharded")
    assert len(list(artifact.root.glob("model-*.safetensors"))) == SHARDS
    masks = [load_masks(one.root, one.manifest) for one in (whole, artifact)]
    assert all(torch.equal(masks[0][name], mask) for name, mask in masks[1].items())
    assert same_weights(whole.root, artifact.root)
    (source.folder / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks model-1\.safetensors, which its index names"):
        prune(SavedModel.find(str(source.folder)), tmp_path / "again")


def same_weights(one: Path, other: Path) -> bool:
    models = [SavedModel.find(str(path)).load().state_dict() for path in (one, other)]
    return all(torch.equal(models[0][name], tensor) for name, tensor in models[1].items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_two_processes_make_the_masks_of_one(method: str, tmp_path: Path) -> None:
    source = dense("llava", tmp_path)
    alone = prune(source, tmp_path / "alone", method=method, calibration=16)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vlmc.toolchain.cli", "prune", str(source.folder), "--out", str(tmp_path / "both")]
    options = ["--method", method, "--calibration", "16", "--json"]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*command, *options],
            env=os.environ | group | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        said = [rank.communicate(timeout=280) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert said[0][0].startswith("{")
    assert said[1] == ("", "")
    both = Artifact.open(tmp_path / "both")
    one, two = (load_masks(artifact.root, artifact.manifest) for artifact in (alone, both))
    assert all(torch.equal(mask, two[name]) for name, mask in one.items())
