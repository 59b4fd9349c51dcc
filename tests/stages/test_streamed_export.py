"""A model that does not fit into memory is exported too: into the same graphs, its weights read whenever they are needed."""

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests import pico
from tests.artifacts import DEPLOYABLE, dense, exported, pruned
from vlmc.runtime import Artifact, InputError
from vlmc.toolchain.deploy.agreement import FEW
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models import fitting
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import Export

pytestmark = pytest.mark.integration

QUIET = Progress(quiet=True)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory is free."""
    monkeypatch.setattr(fitting, "free_memory", lambda: 0)


@pytest.mark.parametrize("family", DEPLOYABLE)
def test_the_graphs_are_those_of_a_model_in_memory(
    family: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    held = Artifact.open(exported(family, tmp_path_factory.getbasetemp()))
    request.getfixturevalue("full")
    made = pruned(dense(family, tmp_path / "dense"), tmp_path / "artifact")
    report = Export(ExportSettings(), "onnx", QUIET).run(made)
    assert report["agreement"]["tokens"] == FEW * report["agreement"]["questions"] == 2 * FEW
    for name in (graph["graph"] for graph in report["graphs"]):
        found, expected = (onnx.load(root / "onnx" / f"{name}.onnx") for root in (made.root, held.root))
        assert [node.op_type for node in found.graph.node] == [node.op_type for node in expected.graph.node]
        assert values(found) == values(expected)


def values(model: onnx.ModelProto) -> dict[str, bytes]:
    return {one.name: numpy_helper.to_array(one).tobytes() for one in model.graph.initializer}


@pytest.mark.usefixtures("full")
def test_what_needs_the_model_in_memory_is_refused(tmp_path: Path) -> None:
    made = pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "artifact")
    for settings, option in ((ExportSettings(packed=True), "--packed"), (ExportSettings(lora_twin=True), "--lora-twin")):
        with pytest.raises(InputError, match=rf"{option} needs the model in memory, 0 GB of it free: leave it out"):
            Export(settings, "onnx", QUIET).run(made)
    assert not (made.root / "onnx").exists()


def test_a_model_fits_where_three_of_it_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SavedModel.find(str(pico.save("llava", tmp_path / "dense")))
    size = sum(4 * parameter.numel() for parameter in source.load().parameters())
    for free, expected in ((3 * size, True), (3 * size - 1, False)):
        monkeypatch.setattr(fitting, "free_memory", lambda free=free: free)
        assert fitting.fits(source) is expected
