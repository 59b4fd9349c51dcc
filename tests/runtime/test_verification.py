"""A changed artifact gives no answer: it is compared with its manifest while it is loaded."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.artifacts import exported
from tests.runtime.test_artifact import make
from vlmc.runtime import load, verification
from vlmc.runtime.artifact import Artifact, file_digests
from vlmc.runtime.errors import InputError
from vlmc.runtime.verification import Verification, read_files

pytestmark = pytest.mark.integration

IMAGE, PROMPT = Image.new("RGB", (40, 30), (200, 30, 30)), "what is shown"
CHANGED = "is not the file that the manifest lists"


@pytest.fixture
def artifact(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A copy of an artifact with graphs."""
    shutil.copytree(exported("llava", tmp_path_factory.getbasetemp()), tmp_path / "a")
    return Artifact.open(tmp_path / "a")


@pytest.mark.parametrize("path", ["onnx/embed_tokens.onnx", "onnx/deployment.json", "tokenizer.json"])
def test_a_changed_file_is_refused_before_the_first_answer(artifact: Artifact, path: str) -> None:
    content = bytearray((artifact.root / path).read_bytes())
    if path.endswith(".json"):
        content[content.rfind(b" ")] = ord("\n")  # the same JSON
    else:
        content[-2000] ^= 1
    (artifact.root / path).write_bytes(content)
    with load(artifact.root) as model:
        for _ in range(2):
            with pytest.raises(InputError, match=rf"{path} {CHANGED} \(SHA-256 differs\)"):
                model.generate(IMAGE, PROMPT)
    for verify in ("size", False):
        with load(artifact.root, verify=verify) as model:  # type: ignore[arg-type]
            model.generate(IMAGE, PROMPT)


def test_it_answers_and_hashes_once(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    plain = file_digests.sha256_file
    monkeypatch.setattr(file_digests, "sha256_file", lambda path: read.append(path) or plain(path))
    monkeypatch.setattr(file_digests, "RACY_NS", -1)
    monkeypatch.setattr(verification, "_LARGE", 0)
    for _ in range(2):
        with load(artifact.root) as model:
            assert model.generate(IMAGE, PROMPT).tokens
    assert len(read) == len(set(read)) == len(read_files(artifact, "onnx"))
    assert not [path for path in read if path.suffix == ".safetensors"]


def test_a_file_of_another_size_is_refused_at_once_unless_nothing_is_compared(artifact: Artifact) -> None:
    (artifact.root / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="has 0 bytes"):
        load(artifact.root, verify="size")
    load(artifact.root, verify=False).close()


def test_an_error_of_the_thread_is_told_to_who_waits(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    with pytest.raises(InputError, match="cannot be verified"):
        Verification(artifact, ["gone"]).wait()
