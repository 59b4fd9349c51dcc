"""inspect of a dense model: what it says is what pruning would do."""

import json
from pathlib import Path

import pytest

from tests import pico
from tests.artifacts import pruned
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.families import exported_names
from vlmc.toolchain.families.base import Family
from vlmc.toolchain.families.qwen3_vl import Qwen3VL
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.reporting.dense_model import describe


@pytest.mark.integration
@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_it_counts_what_pruning_takes(family: str, tmp_path: Path) -> None:
    source = SavedModel.find(str(pico.save(family, tmp_path / "dense")))
    found, model = describe(source), source.load()
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["types"] == ["F16"]
    assert found["bytes"]["weights"] <= 2 * found["parameters"]
    layers = pruned(source.folder, tmp_path / "pruned").manifest.layers
    for part, told in found["prunable"].items():
        names = [name for name, layer in layers.items() if layer.part == part]
        assert told["layers"] == len(names)
        assert told["parameters"] == sum(model.get_parameter(f"{name}.weight").numel() for name in names)
    assert (found["exported"], found["odd"]) == (family in pico.DEPLOYABLE, 0)


@pytest.mark.integration
def test_the_command_says_what_to_do_next(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Qwen3VL, "wiring", Family.wiring)  # as a model that vlmc found out about by itself
    assert run(["inspect", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == "llava"
    folder = pico.save("qwen3_vl", tmp_path / "dense")
    assert run(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"vlmc exports {', '.join(exported_names())}; transformers loads what it makes of this model" in out
    assert out.splitlines()[-1] == f"next: vlmc compress {folder} --target 2:4 --repair ressa"
