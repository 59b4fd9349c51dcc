"""Adapters on disk, and peft's reading of them."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, PeftModel
from torch import nn

from tests import pico
from tests.repair import material
from vlmc.runtime.errors import InputError
from vlmc.toolchain.repair.adapters import Adapters, attach, attach_saved, load_adapter, save_adapter
from vlmc.toolchain.repair.methods import METHODS, AdapterSpec, LoRA, SparseLoRA

DIGEST = "0" * 64


def trained(model: nn.Module, plan: dict[str, AdapterSpec]) -> Adapters:
    adapters = attach(model, plan)
    for layer in adapters.layers.values():
        nn.init.normal_(layer.lora_B, generator=torch.Generator().manual_seed(3))
    return adapters


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 8))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("family", pico.USUAL)
def test_peft_reads_the_interface_as_what_was_trained(family: str, tmp_path: Path) -> None:
    source = material.dense(family, tmp_path / "dense")
    model = source.load()
    names = source.family.adaptable(model)
    # two ranks and two scales, so that the patterns are read as well
    plan = {name: AdapterSpec(LoRA, 2 + index % 2, 6.0 + 2 * (index % 2)) for index, name in enumerate(names)}
    adapters = trained(model, plan)
    feed = material.encoder(source).question(material.samples(1)[0])
    ours = model(**feed).logits
    with adapters.off():
        assert not torch.allclose(ours, model(**feed).logits, atol=1e-2)
    save_adapter(tmp_path / "adapter", adapters, METHODS["ressa"], DIGEST, str(source.folder))
    assert PeftConfig.from_pretrained(tmp_path / "adapter").base_model_name_or_path == "dense"
    theirs = PeftModel.from_pretrained(source.load(), tmp_path / "adapter")
    torch.testing.assert_close(theirs(**feed).logits, ours)


def test_an_adapter_comes_back_as_it_was(tmp_path: Path) -> None:
    mask_OI = torch.rand(8, 16) > 0.5
    plan = {"0": AdapterSpec(SparseLoRA, 2, 6.0, mask_OI), "1": AdapterSpec(LoRA, 4, 8.0)}
    model = small()
    adapters = trained(model, plan)
    save_adapter(tmp_path, adapters, METHODS["ressa"], DIGEST)
    saved = load_adapter(tmp_path)
    assert saved.base_digest == DIGEST
    adapters.detach()
    again = attach_saved(model, saved, {"0": mask_OI})
    for name, layer in again.layers.items():
        assert type(layer) is type(adapters.layers[name])
        assert torch.equal(layer.merged(), adapters.layers[name].merged())


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("demo", "demo"),
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf"),
        ("/home/someone/models/llava", "llava"),
        ("./models/llava/", "llava"),
        ("~/llava", "llava"),
        ("some/models/llava", "llava"),
        (None, None),
    ],
)
def test_the_base_is_named_without_the_path_to_it(model: str | None, name: str | None, tmp_path: Path) -> None:
    save_adapter(tmp_path, trained(small(), {"0": AdapterSpec(LoRA, 2, 6.0)}), METHODS["ressa"], DIGEST, model)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == name


def test_tensors_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    save_adapter(tmp_path, trained(small(), {"0": AdapterSpec(LoRA, 2, 6.0)}), METHODS["ressa"], DIGEST)
    saved = load_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    assert len(saved.tensors) == 2
    with pytest.raises(FileNotFoundError):
        saved.tensors[next(iter(saved.tensors))]


def test_equal_adapters_are_equal_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        torch.manual_seed(0)
        save_adapter(tmp_path / folder, trained(small(), {"0": AdapterSpec(LoRA, 2, 6.0)}), METHODS["ressa"], DIGEST)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_adapter_for_another_model_is_refused(tmp_path: Path) -> None:
    save_adapter(tmp_path, trained(small(), {"1": AdapterSpec(LoRA, 2, 6.0)}), METHODS["ressa"], DIGEST)
    with pytest.raises(InputError, match="a layer 1, which this model lacks"):
        attach_saved(nn.Sequential(nn.Linear(8, 8)), load_adapter(tmp_path), {})
    with pytest.raises(InputError, match=r"adapter's 1.lora_A is \(2, 8\), this model needs \(2, 4\)"):
        attach_saved(nn.Sequential(nn.ReLU(), nn.Linear(4, 8)), load_adapter(tmp_path), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "LOHA"}, "is not an adapter of ressa"),
        ({"lora_dropout": 0.1}, "is not an adapter of ressa"),
        ({"target_modules": ["0", "1"]}, "1 is in only one of its two files"),
        ({"target_modules": ["0", None]}, "target_modules is not a list of names"),
        ({"target_modules": "0"}, "target_modules is not a list of names"),
        ({"r": None}, "cannot be read"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    save_adapter(tmp_path, trained(small(), {"0": AdapterSpec(LoRA, 2, 6.0)}), METHODS["ressa"], DIGEST)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_adapter(tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_missing_and_damaged_files_are_named(name: str, tmp_path: Path) -> None:
    save_adapter(tmp_path, trained(small(), {"0": AdapterSpec(LoRA, 2, 6.0)}), METHODS["ressa"], DIGEST)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:30])
    with pytest.raises(InputError, match=name):
        load_adapter(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load_adapter(tmp_path)
