"""Artifacts whose manifest is of schema version 1 are read, run, extended and exported again, and keep their digest."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import pico
from vlmc.runtime import Artifact, InputError, load
from vlmc.runtime.artifact import put_texts
from vlmc.runtime.artifact.manifest import checksum
from vlmc.runtime.artifact.version_1 import upgrade
from vlmc.runtime.deployment import Deployment, FixedProcessor
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.reporting.verification import verify_artifact
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import Export

KEPT = Path(__file__).parents[1] / "version_1"
KNOWN = json.loads((KEPT / "answers.json").read_text())


@pytest.fixture
def old(tmp_path: Path) -> Artifact:
    return Artifact.open(shutil.copytree(KEPT / "artifact", tmp_path / "artifact"))


def answers(folder: Path) -> list[dict[str, Any]]:
    with load(folder, threads=1) as model:
        found = [(one, model.generate(pico.picture(*one["image"]), one["question"])) for one in KNOWN["answers"]]
    return [
        {**one, "text": answer.text, "tokens": list(answer.tokens), "prompt_tokens": answer.prompt_tokens}
        for one, answer in found
    ]


def test_it_answers_as_it_did(old: Artifact) -> None:
    old.verify_files()
    assert old.digest == KNOWN["digest"]
    assert all(report.violation is None for report in verify_artifact(old))
    assert answers(old.root) == KNOWN["answers"]


def test_a_report_makes_it_version_2_and_it_still_answers(old: Artifact) -> None:
    newer = put_texts(old, {"reports/eval.json": "{}"})
    newer.verify_files()
    content = json.loads((old.root / "manifest.json").read_text())
    assert (content["schema_version"], newer.inherited, newer.digest) == (2, None, KNOWN["digest"])
    assert "serving" not in content
    assert "onnx/deployment.json" in newer.manifest.files
    assert answers(old.root) == KNOWN["answers"]


@pytest.mark.slow
def test_it_is_exported_again_by_newer_code(old: Artifact) -> None:
    Export(ExportSettings(), "onnx", Progress(quiet=True)).run(old)
    newer = Artifact.open(old.root)
    newer.verify_files()
    deployment = newer.deployment("onnx")
    assert deployment is not None
    assert isinstance(deployment.processor, FixedProcessor)
    assert (newer.digest, deployment.max_images) == (KNOWN["digest"], None)
    assert answers(old.root) == KNOWN["answers"]


def test_images_before_the_text_are_kept_there() -> None:
    serving = {"image": {}, "image_token_id": 4, "image_tokens": 32, "image_position": "front", "max_positions": 64}
    serving |= {"prompt": "<image>Question: {prompt} Answer:", "eos_token_ids": [2], "image_slot": "<image>"}
    fields, found = upgrade({"schema_version": 1, "family": "blip-2", "serving": serving, "layers": {}})
    assert fields == {"schema_version": 2, "family": "blip-2", "layers": {}}
    assert isinstance(found, Deployment)
    assert (found.prompt.place, found.prompt.question) == ("front", "{images}Question: {prompt} Answer:")
    assert upgrade({"schema_version": 1, "family": "gemma3", "serving": None}) == (
        {"schema_version": 2, "family": "gemma3"},
        None,
    )


def test_damaged_serving_data_are_told(old: Artifact) -> None:
    content = json.loads((old.root / "manifest.json").read_text())
    content["serving"]["image_tokens"] = 0
    del content["checksum"]
    (old.root / "manifest.json").write_text(json.dumps(content | {"checksum": checksum(content)}))
    with pytest.raises(InputError, match="is not valid at image_tokens"):
        Artifact.open(old.root)
