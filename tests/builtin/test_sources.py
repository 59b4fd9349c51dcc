"""A built-in source is one package with a SOURCE, and one line: models, data and verbs follow from it."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from tests import pico
from vlmc.runtime.errors import EnvironmentLacks
from vlmc.toolchain import builtin, data
from vlmc.toolchain.builtin import BuiltIn, NamedData, NamedModel, with_usual_data
from vlmc.toolchain.cli.builtin import register
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import EvalSettings, PruneSettings


def questions(split: str, count: int | None) -> Sequence[Sample]:
    images = (pico.picture(0, 8, 8),)
    return [Sample(f"{split}-{number}", images, "which ?", "red", "all") for number in range(count or 5)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Register a second source, whose model is fetched into this folder."""

    def locate() -> Path:
        if not (tmp_path / "small").is_dir():
            raise EnvironmentLacks("small is not on this machine yet: run 'vlmc fetch small'")
        return tmp_path / "small"

    module = ModuleType("second")
    small = NamedModel("small", "a second model", "colours", locate, lambda: pico.save("llava", tmp_path / "small"))
    module.SOURCE = BuiltIn((small,), (NamedData("colours", "questions about colours", questions),))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "second", module)
    monkeypatch.setattr(builtin, "SOURCES", (*builtin.SOURCES, "second"))
    return tmp_path


def test_the_demo_is_one_of_them() -> None:
    assert list(builtin.models())[:2] == ["demo", "demo-blip2"]
    assert next(iter(builtin.data_sets())) == "demo"


def test_a_model_is_found_by_its_name_once_it_is_fetched(folder: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="vlmc fetch small"):
        SavedModel.find("small")
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, ["fetch", "small", "--json"])
    assert json.loads(done.stdout) == {"folder": str(folder / "small")}
    found = SavedModel.find("small")
    assert (found.title, found.origin, found.folder) == ("small", "small", folder / "small")


@pytest.mark.usefixtures("folder")
def test_data_is_found_by_its_name() -> None:
    assert [sample.id for sample in data.load("colours", "train", 2)] == ["train-0", "train-1"]


def test_its_verb_writes_files_that_are_read_again(folder: Path) -> None:
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, ["colours-data", str(folder / "out"), "--split", "train", "--count", "2", "--json"])
    (sample, other) = data.load(json.loads(done.stdout)["file"], "train")
    assert (sample.id, sample.question, other.answer) == ("train-0-0", "which ?", "red")


@pytest.mark.usefixtures("folder")
def test_a_model_comes_with_its_own_data_where_none_is_named() -> None:
    assert with_usual_data(EvalSettings(), "small").data == "colours"
    assert with_usual_data(PruneSettings(data="demo"), "small").data == "demo"
    assert with_usual_data(PruneSettings(), "some/model").data == "demo"
