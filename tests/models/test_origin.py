"""An artifact holds the dense model's name and no path; the model is found again, by its digest."""

import shutil
from pathlib import Path

import pytest

from tests import pico
from tests.artifacts import pruned
from tests.repair.material import samples
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.toolchain.evaluate.compare import compare
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.origin import find_dense
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import CompressSettings, EvalSettings
from vlmc.toolchain.stages.compress import Compress


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def texts(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.suffix in {".md", ".json", ".csv"})


@pytest.mark.slow
def test_the_whole_chain_by_absolute_paths_leaves_none_in_the_artifact(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for sample in samples(6):
        sample.load_image().save(data / f"{sample.id}.png")
    rows = [f"{one.id}.png,{one.question},{one.answer}" for one in samples(6)]
    (data / "train.csv").write_text("\n".join(["image,question,answer", *rows]) + "\n")
    source = SavedModel.find(str(pico.save("llava", tmp_path / "models" / "my-llava")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    given = str(data / "train.csv")
    options = CompressSettings(data=given, validation=given, calibration=2, steps=2, batch=2, rank=2, pruned_questions=3)
    out = tmp_path / "out" / "small"
    artifact = Compress(options).run(source, out)
    assert Compress(options).run(source, out).digest == artifact.digest
    found = compare(str(out), [], EvalSettings(data=given, count=4), Progress(quiet=True))
    assert list(found["models"]) == ["dense", "small"]
    assert found["pruned"]["count"] == 3
    assert str(tmp_path) not in texts(out)
    manifest = Artifact.open(out).manifest
    assert manifest.origin.model == "my-llava"
    assert {step.config.get("data") for step in manifest.history} == {"train.csv", None}
    assert manifest.history[1].measures["pruned_accuracy"]["data"] == "train.csv"


@pytest.mark.integration
def test_it_is_found_where_it_lay_beside_the_artifact_or_by_name(tmp_path: Path, cache: Path) -> None:
    artifact = pruned(pico.save("llava", tmp_path / "models" / "dense"), tmp_path / "out" / "small")
    assert find_dense(artifact).folder == tmp_path / "models" / "dense"
    shutil.move(tmp_path / "models" / "dense", tmp_path / "out" / "dense")
    assert find_dense(artifact).folder == tmp_path / "out" / "dense"
    shutil.rmtree(cache)
    assert find_dense(artifact).folder == tmp_path / "out" / "dense"
    shutil.move(tmp_path / "out" / "dense", tmp_path / "moved")
    with pytest.raises(InputError, match=r"the dense model dense, from which .* was pruned, is not found: .* --dense"):
        find_dense(artifact)
    assert find_dense(artifact, str(tmp_path / "moved")).folder == tmp_path / "moved"
    assert find_dense(artifact).folder == tmp_path / "moved", "what the user named once is known"


@pytest.mark.integration
def test_another_model_by_the_same_name_is_passed_over(tmp_path: Path, cache: Path) -> None:
    artifact = pruned(pico.save("llava", tmp_path / "models" / "dense"), tmp_path / "small")
    pico.save("llava", tmp_path / "dense", seed=1)
    assert find_dense(artifact).folder == tmp_path / "models" / "dense"
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(InputError, match=r"dense is not the model that .* was pruned from \(digest differs\)"):
        find_dense(artifact)


@pytest.mark.integration
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file")
    artifact = pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "small")
    assert find_dense(artifact).folder == tmp_path / "dense"


def test_a_models_title_is_its_name_or_the_last_of_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pico.save("llava", tmp_path / "one" / "my-llava")
    monkeypatch.chdir(folder)
    titles = [SavedModel.find(name).title for name in ("demo", str(folder), ".", "../my-llava")]
    assert titles == ["demo", "my-llava", "my-llava", "my-llava"]
    assert SavedModel("org/model", folder).title == "org/model"
