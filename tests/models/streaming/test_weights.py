"""A streamed model computes what a loaded one does, and holds weights only while they are asked for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import pico
from tests.repair import material
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.models.saved import SavedModel

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
FAMILIES = (*pico.USUAL, "blip-2-t5")


def saved(family: str, folder: Path) -> SavedModel:
    return SavedModel.find(str(pico.save(family, folder / "dense")))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_and_buffer_is_found_in_the_files(family: str, tmp_path: Path) -> None:
    source = saved(family, tmp_path)
    whole, streamed = source.load(), source.stream(CPU)
    stored = load_file(source.folder / "model.safetensors")
    for name, parameter in whole.named_parameters(remove_duplicate=False):
        assert torch.equal(stored[streamed.stored(f"{name}")].float(), parameter), name
        assert streamed.module.get_parameter(name).is_meta
        assert streamed.dtype(name) == torch.float16
    buffers = dict(streamed.module.named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in whole.named_buffers())


def test_a_module_is_resident_while_it_is_asked_for(tmp_path: Path) -> None:
    source = saved("llava", tmp_path)
    streamed, whole = source.stream(CPU), source.load()
    name = source.family.blocks(whole, source.family.towers[1])[0][0]
    with streamed.resident(name) as block:
        for inner, parameter in block.named_parameters():
            assert torch.equal(parameter, whole.get_parameter(f"{name}.{inner}"))
    assert all(parameter.is_meta for parameter in block.parameters())
    hidden = torch.randn(1, 3, pico.WIDTH)
    with torch.no_grad():
        up = streamed.module.get_submodule(f"{name}.mlp.up_proj")(hidden)
        assert torch.equal(up, whole.get_submodule(f"{name}.mlp.up_proj")(hidden))


def test_blocks_get_their_weights_when_they_run(tmp_path: Path) -> None:
    source = saved("llava", tmp_path)
    streamed, whole = source.stream(CPU), source.load()
    names = [name for tower in source.family.towers for name, _ in source.family.blocks(whole, tower)]
    feed = Encoder(source.load_processor(), source.family, whole).inputs(material.samples(1)[0])
    seen = []
    inside = streamed.module.get_submodule(f"{names[-1]}.mlp.up_proj")
    streamed.module.get_submodule(names[-1]).mlp.register_forward_hook(lambda *_: seen.append(inside.weight.is_meta))
    with torch.no_grad():
        with streamed.by_block(names):
            found = streamed.module(**feed).logits
        assert torch.equal(found, whole(**feed).logits)
        assert torch.equal(streamed.module(**feed).logits, found)  # by leaves again
    assert seen == [False, True]
    assert all(parameter.is_meta for parameter in streamed.module.parameters())


def test_a_module_in_anothers_place_is_given_its_weights(tmp_path: Path) -> None:
    streamed = saved("llava", tmp_path).stream(CPU)
    name = "model.language_model.layers.0.mlp.up_proj"
    weight, linear = streamed.read(f"{name}.weight"), torch.nn.Linear(pico.WIDTH, pico.INNER, bias=False, device="meta")
    streamed.put(name, linear)
    with torch.no_grad():
        assert torch.equal(linear(torch.eye(pico.WIDTH)), weight.t())
    assert linear.weight.is_meta


def test_a_replaced_weight_is_read_from_its_new_place(tmp_path: Path) -> None:
    streamed = saved("llava", tmp_path).stream(CPU)
    name = "model.language_model.layers.0.mlp.up_proj"
    save_file({"new": torch.full((pico.INNER, pico.WIDTH), 2.0)}, tmp_path / "new.safetensors")
    streamed.replace(f"{name}.weight", tmp_path / "new.safetensors", "new")
    with torch.no_grad():
        found = streamed.module.get_submodule(name)(torch.ones(1, pico.WIDTH))
    assert torch.equal(found, torch.full((1, pico.INNER), 2.0 * pico.WIDTH))


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    source = saved("llava", tmp_path)
    weights = load_file(source.folder / "model.safetensors")
    lost = next(name for name in weights if "up_proj" in name)
    del weights[lost]
    save_file(weights, source.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights, the first is \S+up_proj\.weight"):
        source.stream(CPU)


def test_integer_weights_cannot_be_pruned(tmp_path: Path) -> None:
    source = saved("llava", tmp_path)
    weights = load_file(source.folder / "model.safetensors")
    name = next(name for name in weights if "layers.0.mlp.up_proj" in name)
    weights[name] = weights[name].to(torch.float8_e4m3fn)
    save_file(weights, source.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"up_proj\.weight is stored as F8_E4M3: give a model in F64, F32, BF16, F16"):
        source.stream(CPU).dtype("model.language_model.layers.0.mlp.up_proj.weight")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_runs_again_is_kept_as_far_as_there_is_room(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = saved(family, tmp_path).stream(CPU)
    layers = [name for name, module in streamed.module.named_modules() if isinstance(module, torch.nn.Linear)][:3]

    def run() -> None:
        for name in layers:
            module = streamed.module.get_submodule(name)
            module(torch.zeros(1, module.in_features))  # type: ignore[arg-type]

    def kept() -> list[bool]:
        return [not streamed.module.get_parameter(f"{name}.weight").is_meta for name in layers]

    with torch.no_grad(), streamed.ready(run):
        assert kept() == [True] * 3
        run()
    assert kept() == [False] * 3
    monkeypatch.setattr("vlmc.toolchain.models.streaming.weights.HELD", 0.0)
    monkeypatch.setattr("vlmc.toolchain.models.streaming.weights.LITTLE", 0)
    with torch.no_grad(), streamed.ready(run):
        assert kept() == [False] * 3
    run_again = streamed.module.get_submodule(layers[0])
    with torch.no_grad():
        assert run_again(torch.zeros(1, run_again.in_features)).shape[0] == 1  # type: ignore[arg-type]
