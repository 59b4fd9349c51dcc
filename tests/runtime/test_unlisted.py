"""Only listed files are read: one that a loader could pick up all the same is an error that names it."""

from pathlib import Path

import pytest

from tests.runtime.test_artifact import make
from vlmc.runtime.artifact import Artifact, put_texts
from vlmc.runtime.errors import InputError

READ = [
    *("zz.safetensors", "pytorch_model.bin", "weights.PT", "model.safetensors.index.json", "modeling.py", "lib.so"),
    *("tokenizer.json", "vocab.txt", "spiece.model", "chat_template.jinja", "processor_config.json", "adapter_config.json"),
    *("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "more/code.py", "onnx/model.bin"),
    *("qformer_tokenizer/tokenizer_config.json", "additional_chat_templates/tool.jinja"),
]
FINE = [
    *("README.md", "LICENSE", "LICENSE.txt", "NOTICE", "examples/answers.json", "picture.png", ".gitattributes"),
    *(
        ".git/hooks/hook.py",
        ".cache/huggingface/x.json",
        "onnx/decoder.onnx",
        "onnx/deployment.json",
        "manifest.json.partial",
    ),
]


def add(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("{}")


@pytest.mark.parametrize("path", READ)
def test_what_a_loader_could_read_must_be_listed(tmp_path: Path, path: str) -> None:
    artifact = make(tmp_path / "a")
    add(artifact.root, path)
    with pytest.raises(InputError, match=rf"{path} is not listed in the manifest, but could be read"):
        Artifact.open(artifact.root)


@pytest.mark.parametrize("path", FINE)
def test_what_people_add_is_theirs(tmp_path: Path, path: str) -> None:
    artifact = make(tmp_path / "a")
    add(artifact.root, path)
    Artifact.open(artifact.root)


def test_listed_files_are_fine(tmp_path: Path) -> None:
    artifact = put_texts(make(tmp_path / "a"), {"adapter/adapter_config.json": "{}", "tokenizer.json": "{}"})
    Artifact.open(artifact.root)


@pytest.mark.parametrize("path", ["pytorch_model.bin", "adapter/adapter_model.PT", "onnx/state.pkl"])
def test_a_pickle_is_refused_even_if_it_is_listed(tmp_path: Path, path: str) -> None:
    artifact = make(tmp_path / "a")
    with pytest.raises(InputError, match=rf"{path} is a pickle, which can run code when it is read"):
        put_texts(artifact, {path: "{}"})
    with pytest.raises(InputError, match=rf"{path} is a pickle"):
        Artifact.open(artifact.root)
