"""Models of unknown types: what is found in them, and which are refused."""

import json
from pathlib import Path

import pytest

from tests import pico
from tests.families.conftest import Built
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain import families
from vlmc.toolchain.families import FAMILIES, find
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.reporting.verification import verify_artifact
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.prune import Prune

DECODERS = [name for name in pico.FAMILIES if not name.endswith("t5")]


def forget(monkeypatch: pytest.MonkeyPatch, model_type: str) -> None:
    """Take the families of a model type away."""
    left = {name: family for name, family in FAMILIES.items() if family.model_type != model_type}
    monkeypatch.setattr(families, "FAMILIES", left)


@pytest.mark.parametrize("built", DECODERS, indirect=True)
def test_what_is_found_is_what_the_family_would_say(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    known = built.source.family
    forget(monkeypatch, known.model_type)
    found = find(built.source.config, "here")
    assert found.prunable(built.model) == known.prunable(built.model)
    assert found.adaptable(built.model) == known.adaptable(built.model)
    assert known.notice is None
    assert found.notice is not None
    assert f"does not know '{known.model_type}': it prunes the Linear layers of 2 stacks" in found.notice


@pytest.mark.integration
def test_the_notice_is_shown_and_the_model_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(monkeypatch, "llava")
    source = SavedModel.find(str(pico.save("llava", tmp_path / "dense")))
    artifact = Prune(PruneSettings(calibration=2, tokens="text"), progress=Progress()).run(source, tmp_path / "out")
    shown = capsys.readouterr()
    assert "language_model.layers (language, 2 blocks)" in " ".join(shown.err.split())
    assert shown.out == ""
    assert artifact.manifest.family == "llava"
    assert all(report.violation is None for report in verify_artifact(artifact))
    assert {layer.part for layer in artifact.manifest.layers.values()} == {"vision", "language"}


@pytest.mark.parametrize("model_type", ["instructblip", "no such type", None])
def test_what_cannot_be_worked_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str) -> None:
    """An unknown encoder-decoder, a type that transformers does not know either, none at all."""
    config = json.loads((pico.save("instructblip-t5", tmp_path) / "config.json").read_text())
    forget(monkeypatch, "instructblip")
    with pytest.raises(InputError, match=r"here is a .* model.*; vlmc knows blip-2, blip-2-t5, gemma3, .*smolvlm"):
        find(config | {"model_type": model_type}, "here")


def test_a_package_that_its_parts_need_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def lacking(*args: object, **kwargs: object) -> None:
        raise ImportError("\nThis class requires the Torchvision library but it was not found. Check out\nthe page.")

    source = SavedModel.find(str(pico.save("llava", tmp_path)))
    told = r"needs a package: This class requires the Torchvision library but it was not found; install it with pip$"
    with monkeypatch.context() as patch, pytest.raises(EnvironmentLacks, match=f"the processor in .* {told}"):
        patch.setattr(transformers.AutoProcessor, "from_pretrained", lacking)
        source.load_processor()
    forget(monkeypatch, "llava")
    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_config", lacking)
    with pytest.raises(EnvironmentLacks, match=f"here {told}"):
        find(source.config, "here")


@pytest.mark.integration
def test_without_a_chat_template_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "paligemma")
    source = SavedModel.find(str(pico.save("paligemma", tmp_path / "dense")))
    with pytest.raises(InputError, match="'paligemma' model has no chat template; vlmc knows blip-2"):
        Prune(PruneSettings(calibration=2)).run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_language_model_that_the_family_does_not_know_is_refused(tmp_path: Path) -> None:
    config = json.loads((pico.save("blip-2", tmp_path) / "config.json").read_text())
    config["text_config"]["model_type"] = "gpt2"
    with pytest.raises(InputError, match="here is a blip-2 model with a 'gpt2' language model; vlmc knows it with opt, t5"):
        find(config, "here")


def test_a_damaged_configuration_is_one_line(tmp_path: Path) -> None:
    config = SavedModel.find(str(pico.save("llava", tmp_path))).config
    with pytest.raises(InputError, match=r"here has a damaged config.json: its text_config is a list"):
        find(config | {"text_config": ["llama"]}, "here")


def test_every_family_has_its_row_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "families.md").read_text()
    assert all(f"\n| `{name}`" in text for name in FAMILIES)


def test_every_known_family_is_found_by_its_config(built: Built) -> None:
    assert find(built.source.config, "here") is FAMILIES[built.name]
