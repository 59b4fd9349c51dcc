"""A model's files are read as data: no pickle, no code of its own, nothing from the hub that only an artifact asks for."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from tests import pico
from tests.artifacts import pruned
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.runtime.text import Text
from vlmc.toolchain.models.origin import find_dense
from vlmc.toolchain.models.saved import SavedModel

CODE = """
from pathlib import Path
from transformers import LlavaConfig, LlavaForConditionalGeneration
Path({mark!r}).touch()
class Config(LlavaConfig):
    model_type = "own-llava"
class Model(LlavaForConditionalGeneration):
    config_class = Config
"""


class Trap:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_beside_safetensors_is_never_read(tmp_path: Path) -> None:
    folder, mark = pico.save("llava", tmp_path / "dense"), tmp_path / "ran"
    torch.save({"trap": Trap(mark)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(InputError):
        SavedModel.find(str(folder)).load()
    (folder / "other.safetensors").unlink()
    with pytest.raises(InputError, match=r"only pytorch_model\.bin, a pickle, .* convert it"):
        SavedModel.find(str(folder)).load()
    assert not mark.exists()


def test_a_vocabulary_that_cannot_say_every_text_is_told_before_any_work(tmp_path: Path) -> None:
    folder = pico.save("llava", tmp_path / "dense")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"].pop("<unk>")
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] != "<unk>"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("unk_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"dense holds no usable processor: WordLevel error: Missing \[UNK\] token"):
        SavedModel.find(str(folder)).load_processor()


def test_a_template_with_a_token_that_is_nowhere_defined_is_told(tmp_path: Path) -> None:
    folder = pico.save("llava", tmp_path / "dense")
    content = json.loads((folder / "tokenizer.json").read_text())
    del content["post_processor"]["special_tokens"]["<s>"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"dense holds no usable processor: its template uses the token <s>, which it"):
        SavedModel.find(str(folder)).load_processor()
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be read: its template uses the token <s>, which it does"):
        Text(folder)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("tokenizer.json", lambda content: content["added_tokens"][0].update({"\x1b[2J": 1}), "an added token has the key"),
        ("tokenizer_config.json", lambda content: content.update(model_max_length="long"), "'>' not supported"),
        ("generation_config.json", lambda content: content.update(eos_token_id=1 << 80), "eos_token_id is 1208925819614629"),
    ],
)
def test_values_of_no_sense_are_told_in_one_line(
    tmp_path: Path, name: str, change: Any, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = pico.save("llava", tmp_path / "dense")
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    capfd.readouterr()
    saved = SavedModel.find(str(folder))
    with pytest.raises(InputError) as raised:
        saved.family.end_ids(saved.load(), saved.load_processor())
    assert told in str(raised.value)
    assert "\x1b" not in capfd.readouterr().out + str(raised.value)


def with_code(folder: Path, mark: Path) -> Path:
    weights = SavedModel.find(str(folder)).load().state_dict()  # transformers has other names for its own models' files
    save_file({name: weight.clone() for name, weight in weights.items()}, folder / "model.safetensors")
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.Config", "AutoModelForImageTextToText": "own.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own-llava"}))
    return folder


@pytest.mark.integration
def test_a_models_own_code_runs_only_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what a user on a terminal may answer without reading
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    mark = tmp_path / "ran"
    folder = with_code(pico.save("llava", tmp_path / "dense"), mark)
    for use in (SavedModel.load, SavedModel.load_processor, lambda saved: saved.family, lambda saved: saved.dtypes):
        with pytest.raises(InputError, match=r"dense brings Python code of its own .*--trust-remote-code"):
            use(SavedModel.find(str(folder)))
    assert not mark.exists()
    artifact = pruned(folder, tmp_path / "small", trust=True)
    assert mark.exists()
    assert "own.py" in artifact.manifest.files
    assert SavedModel.find(str(artifact.root), trust=True).load().config.model_type == "own-llava"


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer_config.json"])
def test_so_does_a_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = pico.save("idefics3", tmp_path / "dense")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    content = json.loads((folder / name).read_text()) | {"processor_class": "Own", "tokenizer_class": "Own"}
    content["auto_map"] = {"AutoProcessor": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"the processor in .* brings Python code of its own .*--trust-remote-code"):
        SavedModel.find(str(folder)).load_processor()
    assert not (tmp_path / "ran").exists()


@pytest.mark.integration
def test_only_a_model_that_the_user_names_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def download(name: str, *, local_files_only: bool, **_: object) -> str:
        asked.append((name, local_files_only))
        raise huggingface_hub.errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("VLMC_CACHE", str(tmp_path / "cache"))
    artifact = pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "small")
    shutil.rmtree(tmp_path / "dense")
    origin = artifact.manifest.origin.model_copy(update={"model": "other/model"})
    object.__setattr__(artifact, "manifest", artifact.manifest.model_copy(update={"origin": origin}))
    with pytest.raises(InputError, match=r"other/model, .* --dense, or add --allow-download"):
        find_dense(artifact)
    with pytest.raises(InputError, match=r"is not found: name its folder with --dense$"):
        find_dense(artifact, download=True)
    with pytest.raises(EnvironmentLacks):
        SavedModel.find("other/model")
    assert asked == [("other/model", True), ("other/model", False), ("other/model", False)]
