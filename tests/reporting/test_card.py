"""The model card: people write in it, and vlmc's own part is written anew without losing what they wrote."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData

from tests import pico
from tests.artifacts import pruned
from vlmc.runtime.artifact import Artifact, put_texts
from vlmc.runtime.errors import InputError
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.evaluate.compare import record
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.reporting.card import PRUNED, card

pytestmark = pytest.mark.integration


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "pruned")


def measured(share: float) -> dict[str, Any]:
    models = {name: {"overall": share, "by_kind": {"count": share}, "count": 8} for name in ("dense", "pruned")}
    return {"data": "demo", "split": "test", "count": 8, "models": models}


def edit(artifact: Artifact, old: str, new: str) -> Artifact:
    path = artifact.root / "README.md"
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    return Artifact.open(artifact.root)


@pytest.mark.parametrize("verb", ["verify-sparsity", "inspect"])
def test_a_card_that_was_edited_is_told_of_and_refuses_nothing(
    artifact: Artifact, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([verb, str(artifact.root)]) == 0
    assert "README.md" not in capsys.readouterr().err
    edit(artifact, "library_name", "license: mit\nlibrary_name").verify_files()
    assert run([verb, str(artifact.root)]) == 0
    assert "README.md was changed after vlmc wrote it" in capsys.readouterr().err
    (artifact.root / "README.md").unlink()
    assert run([verb, str(artifact.root)]) == 0
    assert "README.md was removed" in capsys.readouterr().err
    (artifact.root / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json has 2 bytes"):
        Artifact.open(artifact.root)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_evaluation_keeps_what_people_wrote(artifact: Artifact, end: str) -> None:
    path = artifact.root / "README.md"
    path.write_bytes(path.read_bytes().replace(b"\n", end.encode()))
    edit(artifact, "library_name", "license: mit\nlibrary_name")
    artifact = edit(artifact, "## How to run it", "## Thanks\n\nTo all.\n\n## How to run it")
    for share, told in ((0.25, "| overall | 25.0 % | 25.0 % |"), (0.5, "| overall | 50.0 % | 50.0 % |")):
        record(Artifact.open(artifact.root), measured(share), Progress())
        text = path.read_bytes().decode()
        assert "license: mit" in text
        assert "To all." in text
        assert text.count("| overall |") == 1
        assert told in text
    assert Artifact.open(artifact.root).card_note is None


def test_measures_that_were_edited_are_left_alone_and_said(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = edit(artifact, "measures it", "of mine measures it")
    before = (artifact.root / "README.md").read_bytes()
    record(artifact, measured(0.5), Progress())
    assert "README.md is left unchanged" in capsys.readouterr().err
    assert (artifact.root / "README.md").read_bytes() == before
    assert json.loads((artifact.root / "reports" / "eval.json").read_text())["count"] == 8
    assert Artifact.open(artifact.root).card_note


def test_a_card_of_an_older_vlmc_is_written_anew_unless_it_was_edited(artifact: Artifact) -> None:
    old = put_texts(artifact, {"README.md": "an old card\n"})
    record(old, measured(0.5), Progress())
    assert "| overall | 50.0 %" in (old.root / "README.md").read_text()
    old = edit(put_texts(Artifact.open(old.root), {"README.md": "an old card\n"}), "old", "older")
    record(old, measured(0.5), Progress(quiet=True))
    assert (old.root / "README.md").read_text() == "an older card\n"


def test_the_card_of_an_adapted_artifact_says_what_waits(artifact: Artifact) -> None:
    plain = card(artifact.manifest)
    assert "loads this folder as it is" in plain
    step = artifact.manifest.history[-1]
    adapted = artifact.manifest.model_copy(update={"state": "adapted"})
    assert "as it is." not in card(adapted)
    assert "vlmc merge . --out" in card(adapted)
    apart = step.model_copy(update={"stage": "repair", "measures": {"kept_apart": True}})
    lora = card(adapted.model_copy(update={"history": (step, apart)}))
    assert "PeftModel.from_pretrained(pruned, 'adapter')" in lora
    assert "vlmc merge" not in lora


def test_the_pruned_models_accuracy_stands_under_its_own_count(artifact: Artifact) -> None:
    step = artifact.manifest.history[-1]
    found = {"data": "demo", "split": "validation", "count": 128, "overall": 0.785}
    told = step.model_copy(update={"stage": "repair", "measures": {PRUNED: found}})
    manifest = artifact.manifest.model_copy(update={"history": (step, told)})
    assert "right answers to 128 questions of demo (validation): 78.5 %" in card(manifest)
    text = card(manifest, measured(0.5))
    assert "| accuracy | dense | pruned (128 validation questions) | pruned |" in text
    assert "| count | 50.0 % | - | 50.0 % |" in text
    assert "| overall | 50.0 % | 78.5 % | 50.0 % |" in text


def parsed(text: str) -> ModelCardData:
    """Read a card as the hub's own library does."""
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


def test_the_hub_reads_licence_base_and_measures(tmp_path: Path) -> None:
    source = pico.save("llava", tmp_path / "dense")
    told = "license: other\nlicense_name: my-licence\nlicense_link: https://example.org/l\nbase_model: [me/first, /root/x]\n"
    (source / "README.md").write_text(f"---\n{told}---\n# Mine\n")
    artifact = pruned(source, tmp_path / "pruned")
    data = parsed((artifact.root / "README.md").read_text())
    assert (data.license, data.license_name, data.license_link) == ("other", "my-licence", "https://example.org/l")
    assert (data.base_model, data.pipeline_tag) == ("me/first", "image-text-to-text")
    assert data.tags == ["vlmc", "sparse", "llava", "2:4"]
    assert data.eval_results is None
    record(artifact, measured(0.25), Progress())
    record(Artifact.open(artifact.root), measured(0.5), Progress())
    text = (artifact.root / "README.md").read_text()
    (result,) = parsed(text).eval_results or []
    assert (result.dataset_name, result.dataset_split, result.metric_type) == ("demo", "test", "exact_match")
    assert result.metric_value == 50.0
    assert str(tmp_path) not in text


def test_a_head_that_people_wrote_is_left_as_it_is(artifact: Artifact) -> None:
    artifact = edit(artifact, "# vlmc: end", "model-index: []\n# vlmc: end")
    record(artifact, measured(0.5), Progress())
    text = (artifact.root / "README.md").read_text()
    assert "model-index: []" in text
    assert "| overall | 50.0 % |" in text


def test_names_cannot_leave_their_place(artifact: Artifact) -> None:
    hostile = "a | b\n<!-- vlmc: end -->\n---\n# vlmc: end"
    found = measured(0.5) | {"data": hostile}
    found["models"] = {name: {**model, "by_kind": {hostile: 0.5}} for name, model in found["models"].items()}
    for share in (0.5, 0.75):
        found["models"]["pruned"]["overall"] = share
        record(Artifact.open(artifact.root), found, Progress())
        text = (artifact.root / "README.md").read_text()
        (result,) = parsed(text).eval_results or []
        assert (result.dataset_name, result.metric_value) == (hostile, 100 * share)
        assert text.count("## How to run it") == 1
        assert text.count("\n---\n") == 1
